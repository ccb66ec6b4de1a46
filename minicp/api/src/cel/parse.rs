//! The words of a rule as a tree: CEL's grammar, its macros written out as loops.

use super::ast::{Ast, Binary, Expr, Literal, Loop, Macro};
use super::fault::{DEPTH_MAX, Fault, TEXT_MAX};
use super::lex::{Token, Word, words};

const RESERVED: &[&str] = &[
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
    "in",
];

pub(super) fn parse(text: &str) -> Result<Ast, Fault> {
    if text.len() > TEXT_MAX {
        return Err(Fault::new(0, format!("longer than {TEXT_MAX} bytes")));
    }
    let mut parser = Parser { words: words(text)?, next: 0, depth: 0 };
    let ast = parser.expr()?;
    match parser.peek() {
        Token::End => Ok(ast),
        _ => parser.unexpected(),
    }
}

struct Parser {
    words: Vec<Word>,
    next: usize,
    depth: usize,
}

impl Parser {
    fn peek(&self) -> &Token {
        self.words.get(self.next).map_or(&Token::End, |w| &w.token)
    }
    fn at(&self) -> usize {
        self.words.get(self.next).or(self.words.last()).map_or(0, |w| w.at)
    }
    fn take(&mut self) -> Token {
        let token = self.peek().clone();
        self.next += 1;
        token
    }
    fn eat(&mut self, sign: &str) -> bool {
        let is = matches!(self.peek(), Token::Sign(s) if *s == sign);
        self.next += usize::from(is);
        is
    }
    fn expect(&mut self, sign: &str) -> Result<(), Fault> {
        if self.eat(sign) { Ok(()) } else { self.unexpected() }
    }
    fn unexpected<T>(&self) -> Result<T, Fault> {
        let what = match self.peek() {
            Token::End => "mismatched input '<EOF>'".to_owned(),
            Token::Sign(sign) => format!("extraneous input '{sign}'"),
            Token::Name(name) => format!("extraneous input '{name}'"),
            _ => "mismatched input".to_owned(),
        };
        Err(Fault::new(self.at(), format!("Syntax error: {what}")))
    }
    fn node(&self, at: usize, expr: Expr) -> Result<Ast, Fault> {
        let depth = expr.depth() + 1;
        if depth > DEPTH_MAX {
            return Err(Fault::new(at, format!("nested deeper than {DEPTH_MAX}")));
        }
        Ok(Ast { at, depth, expr })
    }

    fn expr(&mut self) -> Result<Ast, Fault> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Fault::new(self.at(), format!("nested deeper than {DEPTH_MAX}")));
        }
        let condition = self.or()?;
        let at = self.at();
        let out = if self.eat("?") {
            let yes = self.or()?;
            self.expect(":")?;
            let no = self.expr()?;
            self.node(at, Expr::Choice(Box::new([condition, yes, no])))?
        } else {
            condition
        };
        self.depth -= 1;
        Ok(out)
    }

    fn or(&mut self) -> Result<Ast, Fault> {
        let (at, first) = (self.at(), self.and()?);
        let mut all = vec![first];
        while self.eat("||") {
            all.push(self.and()?);
        }
        self.joined(at, all, Expr::Or)
    }
    fn and(&mut self) -> Result<Ast, Fault> {
        let (at, first) = (self.at(), self.binary(0)?);
        let mut all = vec![first];
        while self.eat("&&") {
            all.push(self.binary(0)?);
        }
        self.joined(at, all, Expr::And)
    }
    fn joined(&self, at: usize, mut all: Vec<Ast>, join: fn(Vec<Ast>) -> Expr) -> Result<Ast, Fault> {
        match all.pop() {
            Some(alone) if all.is_empty() => Ok(alone),
            Some(last) => {
                all.push(last);
                self.node(at, join(all))
            }
            None => self.unexpected(),
        }
    }

    /// Relations bind loosest (0), then sums, then products; all from the left.
    fn binary(&mut self, level: u8) -> Result<Ast, Fault> {
        if level > 2 {
            return self.unary();
        }
        let mut left = self.binary(level + 1)?;
        loop {
            let sign = match self.peek() {
                Token::Sign(sign) => sign,
                Token::Name(name) if name == "in" => "in",
                _ => return Ok(left),
            };
            let Some((_, op, _)) = Binary::ALL.iter().find(|(s, _, l)| *s == sign && *l == level) else {
                return Ok(left);
            };
            let at = self.at();
            self.next += 1;
            let right = self.binary(level + 1)?;
            left = self.node(at, Expr::Binary(*op, Box::new(left), Box::new(right)))?;
        }
    }

    fn unary(&mut self) -> Result<Ast, Fault> {
        let at = self.at();
        for (sign, wrap) in [("!", Expr::Not as fn(Box<Ast>) -> Expr), ("-", Expr::Negative)] {
            let mut times = 0;
            while self.eat(sign) {
                times += 1;
            }
            if times == 0 {
                continue;
            }
            // The smallest number has no positive twin.
            if let (1, "-", Token::Int(n)) = (times, sign, self.peek())
                && *n == i64::MIN.unsigned_abs()
            {
                self.next += 1;
                return self.node(at, Expr::Literal(Literal::Int(i64::MIN)));
            }
            let inner = self.member()?;
            return if times % 2 == 1 { self.node(at, wrap(Box::new(inner))) } else { Ok(inner) };
        }
        self.member()
    }

    fn member(&mut self) -> Result<Ast, Fault> {
        let mut left = self.primary()?;
        loop {
            let at = self.at();
            if self.eat(".") {
                let optional = self.eat("?");
                let Token::Name(name) = self.peek().clone() else { return self.unexpected() };
                self.next += 1;
                let name: Box<str> = name.into();
                if !optional && self.eat("(") {
                    let args = self.list(")")?;
                    left = self.method(at, left, name, args)?;
                } else {
                    left = self.node(at, Expr::Select { of: Box::new(left), name, test: false, optional })?;
                }
            } else if self.eat("[") {
                let optional = self.eat("?");
                let key = Box::new(self.expr()?);
                self.expect("]")?;
                left = self.node(at, Expr::Index { of: Box::new(left), key, optional })?;
            } else if matches!(self.peek(), Token::Sign("{")) {
                return Err(Fault::new(at, "messages are not supported".into()));
            } else {
                return Ok(left);
            }
        }
    }

    fn list(&mut self, end: &str) -> Result<Vec<Ast>, Fault> {
        let mut all = Vec::new();
        while !self.eat(end) {
            all.push(self.expr()?);
            if !self.eat(",") {
                self.expect(end)?;
                break;
            }
        }
        Ok(all)
    }

    fn primary(&mut self) -> Result<Ast, Fault> {
        let at = self.at();
        // A name from the root is the same: there is one scope.
        let rooted = self.eat(".");
        if rooted && !matches!(self.peek(), Token::Name(_)) {
            return self.unexpected();
        }
        let literal = match self.take() {
            Token::Int(n) => match i64::try_from(n) {
                Ok(n) => Literal::Int(n),
                Err(_) => return Err(Fault::new(at, "invalid int literal".into())),
            },
            Token::Uint(n) => Literal::Uint(n),
            Token::Double(n) => Literal::Double(n),
            Token::Text(text) => Literal::Text(text.into()),
            Token::Bytes(bytes) => Literal::Bytes(bytes.into()),
            Token::Name(name) => return self.named(at, name),
            Token::Sign("(") => {
                let inner = self.expr()?;
                self.expect(")")?;
                return Ok(inner);
            }
            Token::Sign("[") => {
                let items = self.list("]")?;
                return self.node(at, Expr::List(items));
            }
            Token::Sign("{") => return self.map(at),
            _ => {
                self.next -= 1;
                return self.unexpected();
            }
        };
        self.node(at, Expr::Literal(literal))
    }

    fn named(&mut self, at: usize, name: String) -> Result<Ast, Fault> {
        let literal = match name.as_str() {
            "true" => Literal::Bool(true),
            "false" => Literal::Bool(false),
            "null" => Literal::Null,
            reserved if RESERVED.contains(&reserved) => {
                return Err(Fault::new(at, format!("reserved identifier: {reserved}")));
            }
            _ if self.eat("(") => {
                let args = self.list(")")?;
                return self.call(at, name, args);
            }
            _ => return self.node(at, Expr::Name(name.into())),
        };
        self.node(at, Expr::Literal(literal))
    }

    fn call(&mut self, at: usize, name: String, mut args: Vec<Ast>) -> Result<Ast, Fault> {
        if name == "has" {
            return match (args.pop(), args.is_empty()) {
                (Some(Ast { expr: Expr::Select { of, name, optional: false, .. }, .. }), true) => {
                    self.node(at, Expr::Select { of, name, test: true, optional: false })
                }
                _ => Err(Fault::new(at, "invalid argument to has() macro".into())),
            };
        }
        self.node(at, Expr::Call { name: name.into(), of: None, args, function: None })
    }

    fn method(&mut self, at: usize, of: Ast, name: Box<str>, mut args: Vec<Ast>) -> Result<Ast, Fault> {
        let what = match (&*name, args.len()) {
            ("all", 2) => Macro::All,
            ("exists", 2) => Macro::Exists,
            ("exists_one" | "existsOne", 2) => Macro::ExistsOne,
            ("filter", 2) => Macro::Filter,
            ("map", 2 | 3) => Macro::Map,
            ("optMap", 2) => Macro::OptMap,
            ("optFlatMap", 2) => Macro::OptFlatMap,
            _ => {
                let expr = Expr::Call { name, of: Some(Box::new(of)), args, function: None };
                return self.node(at, expr);
            }
        };
        let body = args.pop();
        let only = if args.len() == 2 { args.pop() } else { None };
        match (args.pop(), body) {
            (Some(Ast { expr: Expr::Name(name), .. }), Some(body)) => {
                self.node(at, Expr::Loop(Box::new(Loop { what, range: of, name, only, body })))
            }
            _ => Err(Fault::new(at, "argument must be a simple name".into())),
        }
    }

    fn map(&mut self, at: usize) -> Result<Ast, Fault> {
        let mut pairs = Vec::new();
        while !self.eat("}") {
            let key = self.expr()?;
            self.expect(":")?;
            pairs.push((key, self.expr()?));
            if !self.eat(",") {
                self.expect("}")?;
                break;
            }
        }
        self.node(at, Expr::Map(pairs))
    }
}
