//! Past values, for watches that resume and lists that page.
