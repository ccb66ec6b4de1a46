//! D-Bus messages as far as a caller of systemd needs them: pure bytes (D-Bus specification, "Message Protocol"). Written little-endian,
//! read in either order; whatever comes is hostile.

/// Largest message taken, header included.
pub const MESSAGE_BYTES_MAX: usize = 256 << 10;
/// Header without its array of fields.
const FIXED_BYTES: usize = 16;

const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Call,
    Return,
    Error,
    Signal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed D-Bus message: {0}")]
pub struct Malformed(pub &'static str);

/// What a property can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Text(String),
    Bool(bool),
    I32(i32),
    U32(u32),
    I64(i64),
    U64(u64),
    U32s(Vec<u32>),
    Bytes(Vec<u8>),
    Pairs(Vec<(String, String)>),
}

impl Value {
    fn signature(&self) -> &'static str {
        match self {
            Value::Text(_) => "s",
            Value::Bool(_) => "b",
            Value::I32(_) => "i",
            Value::U32(_) => "u",
            Value::I64(_) => "x",
            Value::U64(_) => "t",
            Value::U32s(_) => "au",
            Value::Bytes(_) => "ay",
            Value::Pairs(_) => "a(ss)",
        }
    }
}

/// A message's body, or its header's fields: values are aligned to their own size from the start of the message, which both begin at a
/// multiple of eight of.
#[derive(Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }
    pub fn u32(&mut self, value: u32) {
        self.align(4);
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }
    fn u64(&mut self, value: u64) {
        self.align(8);
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }
    pub fn text(&mut self, text: &str) {
        self.u32(text.len() as u32);
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(0);
    }
    fn signature(&mut self, text: &str) {
        self.bytes.push(text.len() as u8);
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(0);
    }
    /// Elements of `alignment`; the length does not count the padding before the first.
    pub fn array(&mut self, alignment: usize, elements: impl FnOnce(&mut Self)) {
        self.u32(0);
        let at = self.bytes.len() - 4;
        self.align(alignment);
        let start = self.bytes.len();
        elements(self);
        let length = (self.bytes.len() - start) as u32;
        self.bytes.iter_mut().skip(at).zip(length.to_le_bytes()).for_each(|(to, from)| *to = from);
    }
    fn variant(&mut self, value: &Value) {
        self.signature(value.signature());
        match value {
            Value::Text(text) => self.text(text),
            Value::Bool(flag) => self.u32(u32::from(*flag)),
            Value::I32(number) => self.u32(number.cast_unsigned()),
            Value::U32(number) => self.u32(*number),
            Value::I64(number) => self.u64(number.cast_unsigned()),
            Value::U64(number) => self.u64(*number),
            Value::U32s(all) => self.array(4, |w| all.iter().for_each(|n| w.u32(*n))),
            Value::Bytes(all) => self.array(1, |w| w.bytes.extend_from_slice(all)),
            Value::Pairs(all) => self.array(8, |w| {
                for (name, value) in all {
                    w.align(8);
                    w.text(name);
                    w.text(value);
                }
            }),
        }
    }
    /// `a(sv)`.
    pub fn properties(&mut self, all: &[(&str, Value)]) {
        self.array(8, |w| {
            for (name, value) in all {
                w.align(8);
                w.text(name);
                w.variant(value);
            }
        });
    }
}

/// Whom to call.
pub struct Method<'a> {
    pub destination: &'a str,
    pub path: &'a str,
    pub interface: &'a str,
    pub member: &'a str,
    /// Of the body.
    pub signature: &'a str,
}

/// One whole call, ready to be written.
pub fn call(serial: u32, method: &Method<'_>, body: Writer) -> Vec<u8> {
    let mut message = Writer { bytes: vec![b'l', 1, 0, 1] };
    message.u32(body.bytes.len() as u32);
    message.u32(serial);
    message.array(8, |w| {
        let fields = [(PATH, "o", method.path), (INTERFACE, "s", method.interface), (MEMBER, "s", method.member)];
        for (code, signature, text) in fields.into_iter().chain([(DESTINATION, "s", method.destination)]) {
            w.align(8);
            w.bytes.push(code);
            w.signature(signature);
            w.text(text);
        }
        if !method.signature.is_empty() {
            w.align(8);
            w.bytes.push(SIGNATURE);
            w.signature("g");
            w.signature(method.signature);
        }
    });
    message.align(8);
    message.bytes.extend_from_slice(&body.bytes);
    message.bytes
}

/// One message that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub kind: Kind,
    pub reply_to: Option<u32>,
    pub member: String,
    /// Empty if it is no error.
    pub error: String,
    body: Vec<u8>,
    big: bool,
}

impl Message {
    pub fn body(&self) -> Reader<'_> {
        Reader { bytes: &self.body, at: 0, big: self.big }
    }
}

/// Values of a message in order.
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big: bool,
}

impl<'a> Reader<'a> {
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }
    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let end = self.at.checked_add(count).ok_or(Malformed("length"))?;
        let part = self.bytes.get(self.at..end).ok_or(Malformed("cut off"))?;
        self.at = end;
        Ok(part)
    }
    fn u8(&mut self) -> Result<u8, Malformed> {
        self.take(1)?.first().copied().ok_or(Malformed("cut off"))
    }
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.align(4);
        let bytes = self.take(4)?.try_into().map_err(|_| Malformed("cut off"))?;
        Ok(if self.big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }
    /// A string or an object path.
    pub fn text(&mut self) -> Result<&'a str, Malformed> {
        let length = self.u32()? as usize;
        self.ended(length)
    }
    fn signature(&mut self) -> Result<&'a str, Malformed> {
        let length = usize::from(self.u8()?);
        self.ended(length)
    }
    fn ended(&mut self, length: usize) -> Result<&'a str, Malformed> {
        let text = self.take(length)?;
        if self.u8()? != 0 || text.contains(&0) {
            return Err(Malformed("text without its end"));
        }
        std::str::from_utf8(text).map_err(|_| Malformed("text is no UTF-8"))
    }
    /// A variant that holds a string.
    pub fn variant_text(&mut self) -> Result<&'a str, Malformed> {
        match self.signature()? {
            "s" | "o" => self.text(),
            _ => Err(Malformed("variant is no text")),
        }
    }
}

/// The first message of `bytes` and its length; `None` while bytes are missing.
///
/// # Errors
/// The stream is lost then.
pub fn message(bytes: &[u8]) -> Result<Option<(Message, usize)>, Malformed> {
    let Some(fixed) = bytes.first_chunk::<FIXED_BYTES>() else { return Ok(None) };
    let big = match fixed.first() {
        Some(b'l') => false,
        Some(b'B') => true,
        _ => return Err(Malformed("byte order")),
    };
    let mut head = Reader { bytes: fixed, at: 1, big };
    let kind = match head.u8()? {
        1 => Kind::Call,
        2 => Kind::Return,
        3 => Kind::Error,
        4 => Kind::Signal,
        _ => return Err(Malformed("type")),
    };
    head.at = 4;
    let body = head.u32()? as usize;
    head.at = 12;
    let fields = head.u32()? as usize;
    let start = FIXED_BYTES.saturating_add(fields).next_multiple_of(8);
    let whole = start.checked_add(body).filter(|n| *n <= MESSAGE_BYTES_MAX).ok_or(Malformed("too large"))?;
    let Some(text) = bytes.get(..whole) else { return Ok(None) };
    let mut message =
        Message { kind, reply_to: None, member: String::new(), error: String::new(), body: Vec::new(), big };
    let mut reader = Reader { bytes: text, at: FIXED_BYTES, big };
    while reader.at < FIXED_BYTES + fields {
        reader.align(8);
        let code = reader.u8()?;
        match (code, reader.signature()?) {
            (REPLY_SERIAL, "u") => message.reply_to = Some(reader.u32()?),
            (MEMBER, "s") => message.member = reader.text()?.to_owned(),
            (ERROR_NAME, "s") => message.error = reader.text()?.to_owned(),
            (_, "s" | "o") => drop(reader.text()?),
            (_, "g") => drop(reader.signature()?),
            (_, "u") => drop(reader.u32()?),
            _ => return Err(Malformed("header field of an unknown type")),
        }
    }
    if reader.at != FIXED_BYTES + fields {
        return Err(Malformed("header fields"));
    }
    message.body = text.get(start..).unwrap_or_default().to_vec();
    Ok(Some((message, whole)))
}

/// What a client says first on a connection: who it is, as the kernel confirms, and that it goes on. All at once, and the first message only after
/// the answer: systemd's end forgets to look at a message that comes in one piece with `BEGIN`.
pub fn greeting(uid: u32) -> Vec<u8> {
    let digits: String = uid.to_string().bytes().map(|b| format!("{b:02x}")).collect();
    format!("\0AUTH EXTERNAL {digits}\r\nBEGIN\r\n").into_bytes()
}

#[cfg(test)]
#[path = "wire/tests.rs"]
pub(super) mod tests;
