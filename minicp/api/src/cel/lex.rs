//! The text of a rule as words: numbers, strings in all their quotes, names, signs.

use super::fault::Fault;

/// One word and where it begins (bytes into the text).
pub(super) struct Word {
    pub at: usize,
    pub token: Token,
}

#[derive(Clone, PartialEq, Debug)]
pub(super) enum Token {
    /// Magnitude: a sign before it is an operator.
    Int(u64),
    Uint(u64),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
    Name(String),
    Sign(&'static str),
    End,
}

/// Longest first.
const SIGNS: &[&str] = &[
    "&&", "||", "==", "!=", "<=", ">=", "<", ">", "+", "-", "*", "/", "%", "!", "?", ":", ".", ",", "(", ")", "[", "]",
    "{", "}",
];

/// All words of a text; the last is [`Token::End`].
pub(super) fn words(text: &str) -> Result<Vec<Word>, Fault> {
    let mut lexer = Lexer { text, at: 0 };
    let mut words = Vec::new();
    loop {
        lexer.skip();
        let at = lexer.at;
        let token = lexer.token()?;
        let end = token == Token::End;
        words.push(Word { at, token });
        if end {
            return Ok(words);
        }
    }
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or("")
    }
    fn wrong<T>(&self, why: &str) -> Result<T, Fault> {
        Err(Fault::new(self.at, format!("Syntax error: {why}")))
    }
    fn take(&mut self) -> Option<char> {
        let c = self.rest().chars().next()?;
        self.at += c.len_utf8();
        Some(c)
    }
    fn take_while(&mut self, is: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c| !is(c)).unwrap_or(rest.len());
        self.at += end;
        rest.get(..end).unwrap_or("")
    }
    /// Spaces and comments.
    fn skip(&mut self) {
        loop {
            self.take_while(|c| matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0c'));
            if !self.rest().starts_with("//") {
                return;
            }
            self.take_while(|c| c != '\n');
        }
    }

    fn token(&mut self) -> Result<Token, Fault> {
        let rest = self.rest();
        let mut ahead = rest.chars();
        let (Some(first), second) = (ahead.next(), ahead.next()) else { return Ok(Token::End) };
        let digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
        if first.is_ascii_digit() || (first == '.' && digit(second)) {
            return self.number();
        }
        if let Some(quoted) = self.quoted()? {
            return Ok(quoted);
        }
        if first.is_ascii_alphabetic() || first == '_' {
            return Ok(Token::Name(self.take_while(|c| c.is_ascii_alphanumeric() || c == '_').into()));
        }
        match SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            Some(sign) => {
                self.at += sign.len();
                Ok(Token::Sign(sign))
            }
            None => self.wrong(&format!("token recognition error at: '{first}'")),
        }
    }

    fn number(&mut self) -> Result<Token, Fault> {
        let start = self.at;
        if let Some(digits) = self.rest().strip_prefix("0x").or_else(|| self.rest().strip_prefix("0X")) {
            let count = digits.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(digits.len());
            self.at += 2 + count;
            let value = u64::from_str_radix(digits.get(..count).unwrap_or(""), 16);
            return match value {
                Ok(value) => Ok(self.signed(value)),
                Err(_) => self.wrong("invalid int literal"),
            };
        }
        let mut whole = true;
        self.take_while(|c| c.is_ascii_digit());
        // `1.size()` is no number with a fraction.
        let rest = self.rest();
        if rest.starts_with('.') && rest.get(1..).is_some_and(|r| r.starts_with(|c: char| c.is_ascii_digit())) {
            whole = false;
            self.at += 1;
            self.take_while(|c| c.is_ascii_digit());
        }
        if self.rest().starts_with(['e', 'E']) {
            let sign = usize::from(self.rest().get(1..).is_some_and(|r| r.starts_with(['+', '-'])));
            if self.rest().get(1 + sign..).is_some_and(|r| r.starts_with(|c: char| c.is_ascii_digit())) {
                whole = false;
                self.at += 1 + sign;
                self.take_while(|c| c.is_ascii_digit());
            }
        }
        let text = self.text.get(start..self.at).unwrap_or("");
        if !whole {
            return text.parse().map_or_else(|_| self.wrong("invalid double literal"), |v| Ok(Token::Double(v)));
        }
        match text.parse() {
            Ok(value) => Ok(self.signed(value)),
            Err(_) => self.wrong("invalid int literal"),
        }
    }

    fn signed(&mut self, value: u64) -> Token {
        if self.rest().starts_with(['u', 'U']) {
            self.at += 1;
            return Token::Uint(value);
        }
        Token::Int(value)
    }

    /// A string or bytes, if one comes next.
    fn quoted(&mut self) -> Result<Option<Token>, Fault> {
        let rest = self.rest();
        let prefix = rest.bytes().take(3).position(|b| matches!(b, b'"' | b'\''));
        let Some((prefix, marks)) = prefix.and_then(|at| Some((at, rest.get(..at)?))) else { return Ok(None) };
        let (raw, bytes) = match marks.to_ascii_lowercase().as_str() {
            "" => (false, false),
            "r" => (true, false),
            "b" => (false, true),
            "rb" | "br" => (true, true),
            _ => return Ok(None),
        };
        self.at += prefix;
        let quote = if self.rest().starts_with('"') { "\"" } else { "'" };
        let triple = quote.repeat(3);
        let end = if self.rest().starts_with(&triple) { triple.as_str() } else { quote };
        self.at += end.len();
        let mut out = Vec::new();
        loop {
            if self.rest().starts_with(end) {
                self.at += end.len();
                break;
            }
            match self.take() {
                None => return self.wrong("unterminated string"),
                Some('\n' | '\r') if end.len() == 1 => return self.wrong("unterminated string"),
                Some('\\') if !raw => self.escape(bytes, &mut out)?,
                Some(c) => out.extend(c.encode_utf8(&mut [0; 4]).bytes()),
            }
        }
        Ok(Some(if bytes {
            Token::Bytes(out)
        } else {
            match String::from_utf8(out) {
                Ok(text) => Token::Text(text),
                Err(_) => return self.wrong("invalid UTF-8 in string"),
            }
        }))
    }

    fn escape(&mut self, bytes: bool, out: &mut Vec<u8>) -> Result<(), Fault> {
        let plain = match self.take() {
            Some('a') => '\x07',
            Some('b') => '\x08',
            Some('f') => '\x0c',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('v') => '\x0b',
            Some(c @ ('\\' | '"' | '\'' | '`' | '?')) => c,
            Some('x' | 'X') => return self.code(2, 16, bytes, out),
            Some('u') if !bytes => return self.code(4, 16, false, out),
            Some('U') if !bytes => return self.code(8, 16, false, out),
            Some('0'..='3') => {
                self.at -= 1;
                return self.code(3, 8, bytes, out);
            }
            _ => return self.wrong("invalid escape sequence"),
        };
        out.extend(plain.encode_utf8(&mut [0; 4]).bytes());
        Ok(())
    }

    fn code(&mut self, digits: usize, radix: u32, bytes: bool, out: &mut Vec<u8>) -> Result<(), Fault> {
        let text = self.rest().get(..digits).filter(|t| t.chars().all(|c| c.is_digit(radix)));
        let value = text.and_then(|t| u32::from_str_radix(t, radix).ok());
        match value {
            Some(value) if bytes => out.push(value as u8),
            Some(value) => match char::from_u32(value) {
                Some(c) => out.extend(c.encode_utf8(&mut [0; 4]).bytes()),
                None => return self.wrong("invalid unicode code point"),
            },
            None => return self.wrong("invalid escape sequence"),
        }
        self.at += digits;
        Ok(())
    }
}
