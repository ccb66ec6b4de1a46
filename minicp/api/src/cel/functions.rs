//! The functions of Kubernetes' CEL environment that are known here, as data: the checker finds them by name and types, the evaluator by their tag.
//!
//! Types are letters, see [`super::check::Ty::letter`]; `?` is any. A result of `e` is the item type of the receiver, of `v` what an optional holds.

/// A function of the language.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Function {
    Size,
    // Conversions.
    ToInt,
    ToUint,
    ToDouble,
    ToText,
    ToBool,
    ToBytes,
    ToDuration,
    ToTime,
    TypeOf,
    Dyn,
    // Texts.
    Contains,
    StartsWith,
    EndsWith,
    Matches,
    Find,
    FindAll,
    CharAt,
    IndexOf,
    LastIndexOf,
    LowerAscii,
    UpperAscii,
    Replace,
    Split,
    Substring,
    Trim,
    Join,
    Format,
    Quote,
    // Lists.
    IsSorted,
    Sum,
    Min,
    Max,
    SetsContains,
    SetsEquivalent,
    SetsIntersects,
    // Times and durations: the part that is asked for.
    Part(Part),
    // Quantities.
    Quantity,
    IsQuantity,
    CompareTo,
    IsGreaterThan,
    IsLessThan,
    Add,
    Sub,
    AsInteger,
    IsInteger,
    AsApproximateFloat,
    Sign,
    // Addresses.
    Ip,
    IsIp,
    IsCanonical,
    Family,
    IsUnspecified,
    IsLoopback,
    IsLinkLocalMulticast,
    IsLinkLocalUnicast,
    IsGlobalUnicast,
    Cidr,
    IsCidr,
    ContainsIp,
    ContainsCidr,
    PrefixLength,
    Masked,
    // URLs.
    Url,
    IsUrl,
    GetScheme,
    GetHost,
    GetHostname,
    GetPort,
    GetEscapedPath,
    GetQuery,
    // Optionals.
    OptionalOf,
    OptionalOfNonZero,
    OptionalNone,
    HasValue,
    Value,
    OrValue,
    Or,
}

/// A part of a point in time or a duration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Part {
    FullYear,
    Month,
    Date,
    DayOfMonth,
    DayOfWeek,
    DayOfYear,
    Hours,
    Minutes,
    Seconds,
    Milliseconds,
}

/// One way to call a function.
pub(super) struct Row {
    /// The type of the receiver; None: a function of its own.
    pub of: Option<char>,
    pub args: &'static str,
    pub result: char,
    pub function: Function,
}

/// All ways to call `name` with or without a receiver.
pub(super) fn rows(name: &str, method: bool) -> impl Iterator<Item = Row> {
    TABLE
        .iter()
        .filter(move |(n, ..)| *n == name)
        .filter_map(move |(_, ways, function)| {
            let function = *function;
            Some((ways.split_whitespace(), function)).map(move |(ways, function)| {
                ways.filter_map(move |way| {
                    let (head, result) = way.split_once('>')?;
                    let (of, args) = match head.split_once('.') {
                        Some((of, args)) => (of.chars().next(), args),
                        None => (None, head),
                    };
                    let result = result.chars().next()?;
                    (of.is_some() == method).then_some(Row { of, args, result, function })
                })
            })
        })
        .flatten()
}

pub(super) fn is_known(name: &str) -> bool {
    TABLE.iter().any(|(n, ..)| *n == name)
}

/// What Kubernetes has and this has not: refused by name, so that the author knows that it is not a mistake of theirs.
pub(super) fn is_left_out(name: &str) -> bool {
    const LEFT_OUT: &[&str] = &[
        "semver",
        "isSemver",
        "major",
        "minor",
        "patch",
        "format.named",
        "validate",
        "transformList",
        "transformMap",
        "transformMapEntry",
        "reverse",
        "authorizer",
        "path",
        "group",
        "serviceAccount",
        "check",
        "allowed",
    ];
    LEFT_OUT.contains(&name)
}

/// Name, ways (`receiver.arguments>result`), tag.
const TABLE: &[(&str, &str, Function)] = {
    use Function::*;
    &[
        ("size", "s>i y>i l>i m>i s.>i y.>i l.>i m.>i", Size),
        ("int", "i>i u>i d>i s>i t>i", ToInt),
        ("uint", "i>u u>u d>u s>u", ToUint),
        ("double", "i>d u>d d>d s>d", ToDouble),
        ("string", "s>s i>s u>s d>s b>s y>s t>s n>s p>s c>s", ToText),
        ("bool", "b>b s>b", ToBool),
        ("bytes", "y>y s>y", ToBytes),
        ("duration", "n>n s>n", ToDuration),
        ("timestamp", "t>t s>t i>t", ToTime),
        ("type", "?>T", TypeOf),
        ("dyn", "?>?", Dyn),
        ("contains", "s.s>b", Contains),
        ("startsWith", "s.s>b", StartsWith),
        ("endsWith", "s.s>b", EndsWith),
        ("matches", "s.s>b ss>b", Matches),
        ("find", "s.s>s", Find),
        ("findAll", "s.s>L s.si>L", FindAll),
        ("charAt", "s.i>s", CharAt),
        ("indexOf", "s.s>i s.si>i l.?>i", IndexOf),
        ("lastIndexOf", "s.s>i s.si>i l.?>i", LastIndexOf),
        ("lowerAscii", "s.>s", LowerAscii),
        ("upperAscii", "s.>s", UpperAscii),
        ("replace", "s.ss>s s.ssi>s", Replace),
        ("split", "s.s>L s.si>L", Split),
        ("substring", "s.i>s s.ii>s", Substring),
        ("trim", "s.>s", Trim),
        ("join", "l.>s l.s>s", Join),
        ("format", "s.l>s", Format),
        ("strings.quote", "s>s", Quote),
        ("isSorted", "l.>b", IsSorted),
        ("sum", "l.>e", Sum),
        ("min", "l.>e", Min),
        ("max", "l.>e", Max),
        ("sets.contains", "ll>b", SetsContains),
        ("sets.equivalent", "ll>b", SetsEquivalent),
        ("sets.intersects", "ll>b", SetsIntersects),
        ("getFullYear", "t.>i", Part(self::Part::FullYear)),
        ("getMonth", "t.>i", Part(self::Part::Month)),
        ("getDate", "t.>i", Part(self::Part::Date)),
        ("getDayOfMonth", "t.>i", Part(self::Part::DayOfMonth)),
        ("getDayOfWeek", "t.>i", Part(self::Part::DayOfWeek)),
        ("getDayOfYear", "t.>i", Part(self::Part::DayOfYear)),
        ("getHours", "t.>i n.>i", Part(self::Part::Hours)),
        ("getMinutes", "t.>i n.>i", Part(self::Part::Minutes)),
        ("getSeconds", "t.>i n.>i", Part(self::Part::Seconds)),
        ("getMilliseconds", "t.>i n.>i", Part(self::Part::Milliseconds)),
        ("quantity", "s>q", Quantity),
        ("isQuantity", "s>b", IsQuantity),
        ("compareTo", "q.q>i", CompareTo),
        ("isGreaterThan", "q.q>b", IsGreaterThan),
        ("isLessThan", "q.q>b", IsLessThan),
        ("add", "q.q>q q.i>q", Add),
        ("sub", "q.q>q q.i>q", Sub),
        ("asInteger", "q.>i", AsInteger),
        ("isInteger", "q.>b", IsInteger),
        ("asApproximateFloat", "q.>d", AsApproximateFloat),
        ("sign", "q.>i", Sign),
        ("ip", "s>p c.>p", Ip),
        ("isIP", "s>b", IsIp),
        ("ip.isCanonical", "s>b", IsCanonical),
        ("family", "p.>i", Family),
        ("isUnspecified", "p.>b", IsUnspecified),
        ("isLoopback", "p.>b", IsLoopback),
        ("isLinkLocalMulticast", "p.>b", IsLinkLocalMulticast),
        ("isLinkLocalUnicast", "p.>b", IsLinkLocalUnicast),
        ("isGlobalUnicast", "p.>b", IsGlobalUnicast),
        ("cidr", "s>c", Cidr),
        ("isCIDR", "s>b", IsCidr),
        ("containsIP", "c.s>b c.p>b", ContainsIp),
        ("containsCIDR", "c.s>b c.c>b", ContainsCidr),
        ("prefixLength", "c.>i", PrefixLength),
        ("masked", "c.>c", Masked),
        ("url", "s>h", Url),
        ("isURL", "s>b", IsUrl),
        ("getScheme", "h.>s", GetScheme),
        ("getHost", "h.>s", GetHost),
        ("getHostname", "h.>s", GetHostname),
        ("getPort", "h.>s", GetPort),
        ("getEscapedPath", "h.>s", GetEscapedPath),
        ("getQuery", "h.>Q", GetQuery),
        ("optional.of", "?>o", OptionalOf),
        ("optional.ofNonZeroValue", "?>o", OptionalOfNonZero),
        ("optional.none", ">o", OptionalNone),
        ("hasValue", "o.>b", HasValue),
        ("value", "o.>v", Value),
        ("orValue", "o.?>v", OrValue),
        ("or", "o.o>o", Or),
    ]
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_can_be_read() {
        for (name, ways, _) in TABLE {
            let count = rows(name, true).count() + rows(name, false).count();
            assert_eq!(count, ways.split_whitespace().count(), "{name}");
        }
    }
}
