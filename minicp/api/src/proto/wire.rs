//! Fields of one protobuf message, one after the other (protobuf encoding guide).

use super::Wrong;

/// The value of a field as it stands in the message.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

/// What is left of a message.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn varint(&mut self) -> Result<u64, Wrong> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (first, rest) = self.0.split_first().ok_or(Wrong::Truncated)?;
            self.0 = rest;
            value |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Wrong::Varint)
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], Wrong> {
        let (head, rest) = self.0.split_at_checked(n).ok_or(Wrong::Truncated)?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Wrong> {
        self.take(N)?.try_into().map_err(|_| Wrong::Truncated)
    }

    /// The next field's number and value; None at the end.
    pub(super) fn next(&mut self) -> Result<Option<(u64, Wire<'a>)>, Wrong> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let wire = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Wrong::Truncated)?;
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Fixed32(u32::from_le_bytes(self.array()?)),
            other => return Err(Wrong::WireType(other)),
        };
        Ok(Some((tag >> 3, wire)))
    }

    /// The last value of a number: it wins.
    pub(super) fn last(mut self, number: u64) -> Result<Option<Wire<'a>>, Wrong> {
        let mut found = None;
        while let Some((n, wire)) = self.next()? {
            if n == number {
                found = Some(wire);
            }
        }
        Ok(found)
    }

    /// The last bytes of a number; empty if there are none.
    pub(super) fn bytes(self, number: u64) -> Result<&'a [u8], Wrong> {
        match self.last(number)? {
            None => Ok(&[]),
            Some(Wire::Bytes(bytes)) => Ok(bytes),
            Some(_) => Err(Wrong::Mismatch),
        }
    }

    pub(super) fn text(self, number: u64) -> Result<String, Wrong> {
        Ok(String::from_utf8_lossy(self.bytes(number)?).into_owned())
    }

    /// The last varint of a number; 0 if there is none.
    pub(super) fn number(self, number: u64) -> Result<u64, Wrong> {
        match self.last(number)? {
            None => Ok(0),
            Some(Wire::Varint(n)) => Ok(n),
            Some(_) => Err(Wrong::Mismatch),
        }
    }
}
