//! (laid out in the next commits)
