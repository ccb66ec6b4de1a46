//! As much TOML as `hosts.toml` files use (toml.io 1.0 without floats, dates and arrays of tables), tables in the order of the file:
//! there it is the order in which mirrors are asked. Own code because the ready-made parsers cost ten times its size.

/// Nesting of arrays and inline tables.
const DEPTH_MAX: usize = 16;
/// Values of one file.
const VALUES_MAX: usize = 10_000;

/// A value.
#[derive(Clone, PartialEq, Debug)]
pub enum Toml {
    Text(String),
    Number(i64),
    Flag(bool),
    List(Vec<Toml>),
    Table(Table),
}

/// Keys and values, in the order of the file.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Table(pub Vec<(String, Toml)>);

impl Table {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Toml> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// The table at a path, made where there is none; `None` where something else stands there.
    fn descend(&mut self, path: &[String]) -> Option<&mut Table> {
        let Some((first, rest)) = path.split_first() else { return Some(self) };
        let index = match self.0.iter().position(|(name, _)| name == first) {
            Some(index) => index,
            None => {
                self.0.push((first.clone(), Toml::Table(Table::default())));
                self.0.len() - 1
            }
        };
        match self.0.get_mut(index) {
            Some((_, Toml::Table(inner))) => inner.descend(rest),
            _ => None,
        }
    }
}

/// Parses a file; the error names the line.
pub fn parse(text: &str) -> Result<Table, String> {
    let mut parser = Parser { rest: text, line: 1, values: 0 };
    parser.file().map_err(|why| format!("line {}: {why}", parser.line))
}

struct Parser<'a> {
    rest: &'a str,
    line: usize,
    values: usize,
}

type Parsed<T> = Result<T, String>;

impl Parser<'_> {
    fn file(&mut self) -> Parsed<Table> {
        let mut root = Table::default();
        let mut section: Vec<String> = Vec::new();
        let mut sections: Vec<Vec<String>> = Vec::new();
        loop {
            self.blank(true)?;
            match self.peek() {
                None => return Ok(root),
                Some('[') => {
                    self.next();
                    if self.peek() == Some('[') {
                        return Err("arrays of tables are not supported".to_owned());
                    }
                    section = self.path()?;
                    self.want(']')?;
                    if sections.contains(&section) {
                        return Err(format!("table [{}] stands twice", section.join(".")));
                    }
                    sections.push(section.clone());
                    root.descend(&section).ok_or_else(|| format!("{} is no table", section.join(".")))?;
                }
                Some(_) => {
                    let table = root.descend(&section).ok_or("not a table")?;
                    self.pair(table, 0)?;
                }
            }
            self.line_end()?;
        }
    }

    /// `key = value` into a table.
    fn pair(&mut self, table: &mut Table, depth: usize) -> Parsed<()> {
        let mut path = self.path()?;
        self.want('=')?;
        let value = self.value(depth)?;
        let name = path.pop().ok_or("a key is missing")?;
        let table = table.descend(&path).ok_or_else(|| format!("{} is no table", path.join(".")))?;
        if table.get(&name).is_some() {
            return Err(format!("{name:?} stands twice"));
        }
        table.0.push((name, value));
        Ok(())
    }

    /// `a."b c".d`
    fn path(&mut self) -> Parsed<Vec<String>> {
        let mut path = Vec::new();
        loop {
            self.blank(false)?;
            path.push(match self.peek() {
                Some('"') => self.basic()?,
                Some('\'') => self.literal()?,
                _ => self.word(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-'),
            });
            if path.last().is_some_and(String::is_empty) {
                return Err("a key is missing".to_owned());
            }
            if path.len() > DEPTH_MAX {
                return Err(format!("a key of more than {DEPTH_MAX} parts"));
            }
            self.blank(false)?;
            if self.peek() != Some('.') {
                return Ok(path);
            }
            self.next();
        }
    }

    fn value(&mut self, depth: usize) -> Parsed<Toml> {
        self.values += 1;
        if depth > DEPTH_MAX || self.values > VALUES_MAX {
            return Err(format!("more than {VALUES_MAX} values or {DEPTH_MAX} levels"));
        }
        self.blank(false)?;
        match self.peek() {
            Some('"') if self.rest.starts_with("\"\"\"") => self.multi_line("\"\"\"").map(Toml::Text),
            Some('\'') if self.rest.starts_with("'''") => self.multi_line("'''").map(Toml::Text),
            Some('"') => self.basic().map(Toml::Text),
            Some('\'') => self.literal().map(Toml::Text),
            Some('[') => self.list(depth),
            Some('{') => self.inline_table(depth),
            _ => {
                let word = self.word(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '+' | '.' | ':'));
                match word.as_str() {
                    "true" => Ok(Toml::Flag(true)),
                    "false" => Ok(Toml::Flag(false)),
                    other => other
                        .replace('_', "")
                        .parse()
                        .map(Toml::Number)
                        .map_err(|_| format!("{other:?} is no value that is known here")),
                }
            }
        }
    }

    fn list(&mut self, depth: usize) -> Parsed<Toml> {
        self.want('[')?;
        let mut list = Vec::new();
        loop {
            self.blank(true)?;
            if self.peek() == Some(']') {
                self.next();
                return Ok(Toml::List(list));
            }
            list.push(self.value(depth + 1)?);
            self.blank(true)?;
            match self.next() {
                Some(',') => {}
                Some(']') => return Ok(Toml::List(list)),
                _ => return Err("want ',' or ']' in an array".to_owned()),
            }
        }
    }

    fn inline_table(&mut self, depth: usize) -> Parsed<Toml> {
        self.want('{')?;
        let mut table = Table::default();
        self.blank(false)?;
        if self.peek() == Some('}') {
            self.next();
            return Ok(Toml::Table(table));
        }
        loop {
            self.pair(&mut table, depth + 1)?;
            self.blank(false)?;
            match self.next() {
                Some(',') => {}
                Some('}') => return Ok(Toml::Table(table)),
                _ => return Err("want ',' or '}' in an inline table".to_owned()),
            }
        }
    }

    fn basic(&mut self) -> Parsed<String> {
        self.want('"')?;
        let mut text = String::new();
        loop {
            match self.next() {
                Some('"') => return Ok(text),
                Some('\\') => text.push(self.escape()?),
                Some(c) if c != '\n' => text.push(c),
                _ => return Err("a string does not end".to_owned()),
            }
        }
    }

    fn literal(&mut self) -> Parsed<String> {
        self.want('\'')?;
        let text = self.word(|c| c != '\'' && c != '\n');
        self.want('\'')?;
        Ok(text)
    }

    fn multi_line(&mut self, quote: &str) -> Parsed<String> {
        self.rest = self.rest.get(3..).unwrap_or_default();
        if self.rest.starts_with("\r\n") {
            self.next();
        }
        if self.peek() == Some('\n') {
            self.next();
        }
        let mut text = String::new();
        while !self.rest.starts_with(quote) {
            match self.next() {
                None => return Err("a string does not end".to_owned()),
                Some('\\') if quote.starts_with('"') => {
                    if self.rest.trim_start_matches([' ', '\t', '\r']).starts_with('\n') {
                        while self.peek().is_some_and(char::is_whitespace) {
                            self.next();
                        }
                    } else {
                        text.push(self.escape()?);
                    }
                }
                Some(c) => text.push(c),
            }
        }
        self.rest = self.rest.get(3..).unwrap_or_default();
        Ok(text)
    }

    fn escape(&mut self) -> Parsed<char> {
        let digits = match self.next() {
            Some('n') => return Ok('\n'),
            Some('t') => return Ok('\t'),
            Some('r') => return Ok('\r'),
            Some('b') => return Ok('\u{8}'),
            Some('f') => return Ok('\u{c}'),
            Some(c @ ('"' | '\\')) => return Ok(c),
            Some('u') => 4,
            Some('U') => 8,
            _ => return Err("an unknown escape in a string".to_owned()),
        };
        let hex: String = (0..digits).map_while(|_| self.next()).collect();
        let code = u32::from_str_radix(&hex, 16).ok().and_then(char::from_u32);
        code.ok_or_else(|| format!("{hex:?} is no character"))
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let c = chars.next();
        self.rest = chars.as_str();
        self.line += usize::from(c == Some('\n'));
        c
    }

    fn word(&mut self, fits: impl Fn(char) -> bool) -> String {
        let end = self.rest.find(|c| !fits(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at_checked(end).unwrap_or((self.rest, ""));
        self.rest = rest;
        word.to_owned()
    }

    /// Skips blanks and, where `lines`, line ends and comments.
    fn blank(&mut self, lines: bool) -> Parsed<()> {
        loop {
            match self.peek() {
                Some(' ' | '\t') => {}
                Some('\r') if self.rest.starts_with("\r\n") && lines => {}
                Some('\n') if lines => {}
                Some('#') if lines => {
                    self.word(|c| c != '\n');
                    continue;
                }
                _ => return Ok(()),
            }
            self.next();
        }
    }

    fn line_end(&mut self) -> Parsed<()> {
        self.blank(false)?;
        match self.peek() {
            None | Some('\n' | '#') => Ok(()),
            Some('\r') if self.rest.starts_with("\r\n") => Ok(()),
            Some(c) => Err(format!("{c:?} after the end of a value")),
        }
    }

    fn want(&mut self, wanted: char) -> Parsed<()> {
        match self.next() {
            Some(c) if c == wanted => Ok(()),
            Some(c) => Err(format!("want {wanted:?}, not {c:?}")),
            None => Err(format!("want {wanted:?}, not the end")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(s: &str) -> Toml {
        Toml::Text(s.to_owned())
    }

    #[test]
    fn a_file_with_everything() {
        let parsed = parse(
            "# top\nserver = \"https://a\\u00e9\\\"\" # end\nn = 1_000\r\nflag=true\n\n[host.\"https://m:5000\"]\n  capabilities = [\n \"pull\", # c\n 'resolve',\n]\n[host.\"https://m:5000\".header]\nx = [\"1\"]\n[host.'http://b']\nclient = [[\"c\", \"k\"]]\nt.u = {a = 1, \"b\".c = false}\nm = \"\"\"\none \\\n   two\n\"\"\"\nl = '''\na\\b'''\n",
        )
        .unwrap();
        assert_eq!(parsed.get("server"), Some(&text("https://aé\"")));
        assert_eq!((parsed.get("n"), parsed.get("flag")), (Some(&Toml::Number(1000)), Some(&Toml::Flag(true))));
        let Some(Toml::Table(hosts)) = parsed.get("host") else { panic!("{parsed:?}") };
        assert_eq!(hosts.0.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["https://m:5000", "http://b"]);
        let Some(Toml::Table(first)) = hosts.get("https://m:5000") else { panic!("{hosts:?}") };
        assert_eq!(first.get("capabilities"), Some(&Toml::List(vec![text("pull"), text("resolve")])));
        assert_eq!(first.get("header"), Some(&Toml::Table(Table(vec![("x".into(), Toml::List(vec![text("1")]))]))));
        let Some(Toml::Table(second)) = hosts.get("http://b") else { panic!("{hosts:?}") };
        assert_eq!(second.get("client"), Some(&Toml::List(vec![Toml::List(vec![text("c"), text("k")])])));
        assert_eq!((second.get("m"), second.get("l")), (Some(&text("one two\n")), Some(&text("a\\b"))));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (file, want) in [
            ("a = 1\na = 2", "line 2: \"a\" stands twice"),
            ("[a]\n[a]", "line 2: table [a] stands twice"),
            ("[[a]]", "arrays of tables"),
            ("a = 1.5", "\"1.5\" is no value"),
            ("a = 1979-05-27", "is no value"),
            ("a =", "is no value"),
            ("a", "want '='"),
            ("= 1", "a key is missing"),
            ("a = \"x", "does not end"),
            ("a = \"x\ny\"", "does not end"),
            ("a = 1 b = 2", "'b' after the end"),
            ("a = [1 2]", "in an array"),
            ("a = {b = 1", "in an inline table"),
            ("a = \"\\q\"", "unknown escape"),
            ("a = \"\\ud800\"", "no character"),
            ("a = 1\n[a.b]", "a.b is no table"),
            ("[a\n]", "want ']'"),
        ] {
            let error = parse(file).unwrap_err();
            assert!(error.contains(want), "{file:?}: {error}");
        }
        let deep = format!("a = {}", "[".repeat(100_000));
        assert!(parse(&deep).unwrap_err().contains("levels"));
        let many = format!("a = [{}]", "1,".repeat(10_001));
        assert!(parse(&many).unwrap_err().contains("values"));
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(file in "[a\"'.=\\[\\]{},# \\\\\nu0-9-]{0,60}") {
            let _ = parse(&file);
        }
    }
}
