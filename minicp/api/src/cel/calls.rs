//! What each function does. The receiver, if there is one, is the first of the values.

use std::cmp::Ordering;
use std::net::IpAddr;

use super::functions::Function as F;
use super::net::{self, Cidr, Url};
use super::stop::{Budget, Stop, no_overload};
use super::value::{self, Out, Text, Val};
use super::{texts, times};
use crate::quantity::Quantity;
use crate::structural::pattern::Pattern;
use crate::time::Time;

fn said<T>(result: Result<T, String>) -> Result<T, Stop> {
    result.map_err(Stop::Error)
}

/// Texts are paid for by their length.
fn pay(values: &[Val<'_>], budget: &mut Budget) -> Result<(), Stop> {
    let bytes = |v: &Val<'_>| match v {
        Val::Text(text) => text.len(),
        Val::Bytes(bytes) => bytes.len(),
        _ => 0,
    };
    budget.spend(values.iter().map(bytes).sum::<usize>() / 10)
}

pub(super) fn call<'a>(f: F, values: &[Val<'a>], pattern: Option<&Pattern>, budget: &mut Budget) -> Out<'a> {
    pay(values, budget)?;
    match (f, values) {
        (F::Size, [of]) => of.len().and_then(|n| i64::try_from(n).ok()).map(Val::Int).ok_or_else(no_overload),
        (
            F::OptionalOf | F::OptionalOfNonZero | F::OptionalNone | F::HasValue | F::Value | F::OrValue | F::Or,
            values,
        ) => of_optional(f, values),
        (F::TypeOf, [of]) => Ok(Val::Type(of.type_name())),
        (F::Dyn, [of]) => Ok(of.clone()),
        (F::Matches | F::Find | F::FindAll, [Val::Text(text), rest @ ..]) => expression(f, text, rest, pattern, budget),
        (_, [Val::Text(text), rest @ ..]) => of_text(f, text, rest, budget),
        (_, [of @ (Val::List(_) | Val::Items(..)), rest @ ..]) => of_list(f, of, rest, budget),
        (F::Part(part), [Val::Time(time)]) => Ok(Val::Int(times::of_time(part, *time))),
        (F::Part(part), [Val::Duration(nanos)]) => Ok(Val::Int(times::of_duration(part, *nanos))),
        (_, [Val::Quantity(q), rest @ ..]) => of_quantity(f, *q, rest),
        (_, [Val::Ip(ip)]) => of_ip(f, *ip),
        (_, [Val::Cidr(cidr), rest @ ..]) => of_cidr(f, *cidr, rest),
        (_, [Val::Url(url)]) => of_url(f, url),
        _ => converted(f, values).unwrap_or_else(|| Err(no_overload())),
    }
}

fn expression<'a>(f: F, text: &str, rest: &[Val<'a>], known: Option<&Pattern>, budget: &mut Budget) -> Out<'a> {
    let made;
    let (pattern, rest) = match (known, rest) {
        (Some(pattern), rest) => (pattern, rest),
        (None, [Val::Text(pattern), rest @ ..]) => {
            budget.spend(pattern.len())?;
            made = Pattern::new(pattern).map_err(|e| Stop::Error(format!("invalid regular expression: {e}")))?;
            (&made, rest)
        }
        _ => return Err(no_overload()),
    };
    let mut steps = budget.pattern_steps();
    let before = steps;
    let done = match (f, rest) {
        (F::Matches, []) => pattern.matches_within(text, &mut steps).map(Val::Bool),
        (F::Find, []) => pattern
            .find_within(text, &mut steps)
            .map(|found| Val::text(found.and_then(|(from, to)| text.get(from..to)).unwrap_or(""))),
        (F::FindAll, [] | [Val::Int(_)]) => {
            let most = if let [Val::Int(n)] = rest { usize::try_from(*n).unwrap_or(usize::MAX) } else { usize::MAX };
            all_found(pattern, text, most, &mut steps)
        }
        _ => return Err(no_overload()),
    };
    budget.spend_pattern(before - steps)?;
    done.ok_or(Stop::Cost)
}

fn all_found<'a>(pattern: &Pattern, text: &str, most: usize, steps: &mut usize) -> Option<Val<'a>> {
    let (mut out, mut at) = (Vec::new(), 0);
    while out.len() < most {
        let rest = text.get(at..)?;
        let Some((from, to)) = pattern.find_within(rest, steps)? else { break };
        out.push(Val::text(rest.get(from..to)?));
        // An empty match does not come twice.
        let step = if to > from { to } else { to + rest.get(to..)?.chars().next().map_or(1, char::len_utf8) };
        at += step;
        if at > text.len() {
            break;
        }
    }
    Some(Val::List(out.into()))
}

fn of_text<'a>(f: F, text: &str, rest: &[Val<'a>], budget: &mut Budget) -> Out<'a> {
    let int = |n: Option<&Val<'_>>| match n {
        Some(Val::Int(n)) => Some(*n),
        _ => None,
    };
    Ok(match (f, rest) {
        (F::Contains, [Val::Text(part)]) => Val::Bool(text.contains(&**part)),
        (F::StartsWith, [Val::Text(part)]) => Val::Bool(text.starts_with(&**part)),
        (F::EndsWith, [Val::Text(part)]) => Val::Bool(text.ends_with(&**part)),
        (F::CharAt, [Val::Int(n)]) => Val::text(said(texts::char_at(text, *n))?),
        (F::IndexOf, [Val::Text(part), from @ ..]) => Val::Int(said(texts::index_of(text, part, int(from.first())))?),
        (F::LastIndexOf, [Val::Text(part), to @ ..]) => {
            Val::Int(said(texts::last_index_of(text, part, int(to.first())))?)
        }
        (F::LowerAscii, []) => Val::text(text.to_ascii_lowercase()),
        (F::UpperAscii, []) => Val::text(text.to_ascii_uppercase()),
        (F::Replace, [Val::Text(old), Val::Text(new), times @ ..]) => {
            // Each of its characters may become the new text.
            budget.spend(text.len().saturating_add(1).saturating_mul(new.len()) / 10)?;
            Val::text(texts::replace(text, old, new, int(times.first()).unwrap_or(-1)))
        }
        (F::Split, [Val::Text(at), parts @ ..]) => {
            budget.spend(text.len() * 4)?;
            let parts = texts::split(text, at, int(parts.first()).unwrap_or(-1));
            Val::List(parts.into_iter().map(Val::text).collect())
        }
        (F::Substring, [Val::Int(from), to @ ..]) => Val::text(said(texts::substring(text, *from, int(to.first())))?),
        (F::Trim, []) => Val::text(text.trim()),
        (F::Quote, []) => Val::text(texts::quote(text)),
        (F::Format, [list]) => {
            let args = list.items().ok_or_else(no_overload)?;
            let out = said(texts::format(text, &args))?;
            budget.spend(out.len() / 10)?;
            Val::text(out)
        }
        _ => return converted(f, &[&[Val::text(text)], rest].concat()).unwrap_or_else(|| Err(no_overload())),
    })
}

fn of_list<'a>(f: F, of: &Val<'a>, rest: &[Val<'a>], budget: &mut Budget) -> Out<'a> {
    let items = of.items().unwrap_or_default();
    budget.spend(items.len())?;
    let place = |at: Option<usize>| Val::Int(at.and_then(|at| i64::try_from(at).ok()).unwrap_or(-1));
    Ok(match (f, rest) {
        (F::IsSorted, []) => {
            let pairs = items.iter().zip(items.iter().skip(1));
            let orders: Option<Vec<Ordering>> = pairs.map(|(a, b)| value::order(a, b)).collect();
            Val::Bool(orders.ok_or_else(no_overload)?.iter().all(|o| o.is_le()))
        }
        (F::Sum, []) => sum(&items)?,
        (F::Min | F::Max, []) => {
            let wanted = if f == F::Min { Ordering::Less } else { Ordering::Greater };
            let mut items = items.into_iter();
            let name = if f == F::Min { "min" } else { "max" };
            let mut best = items.next().ok_or_else(|| Stop::Error(format!("{name} called on empty list")))?;
            for item in items {
                if value::order(&item, &best).ok_or_else(no_overload)? == wanted {
                    best = item;
                }
            }
            best
        }
        (F::IndexOf | F::LastIndexOf, [wanted]) => {
            let mut found = None;
            for (i, item) in items.iter().enumerate() {
                if value::equal(item, wanted, budget)? {
                    found = Some(i);
                    if f == F::IndexOf {
                        break;
                    }
                }
            }
            place(found)
        }
        (F::Join, separator) => {
            let separator = match separator {
                [] => Text::Lent(""),
                [Val::Text(text)] => text.clone(),
                _ => return Err(no_overload()),
            };
            let mut out = String::new();
            for (i, item) in items.iter().enumerate() {
                let Val::Text(text) = item else { return Err(no_overload()) };
                budget.spend((text.len() + separator.len()) / 10)?;
                if i > 0 {
                    out.push_str(&separator);
                }
                out.push_str(text);
            }
            Val::text(out)
        }
        (F::SetsContains | F::SetsEquivalent | F::SetsIntersects, [other]) => {
            let others = other.items().ok_or_else(no_overload)?;
            Val::Bool(match f {
                F::SetsContains => value::holds_all(&items, &others, budget)?,
                F::SetsEquivalent => {
                    value::holds_all(&items, &others, budget)? && value::holds_all(&others, &items, budget)?
                }
                _ => {
                    let mut any = false;
                    for item in &items {
                        any = any || value::holds(&others, item, budget)?;
                    }
                    any
                }
            })
        }
        _ => return Err(no_overload()),
    })
}

fn sum<'a>(items: &[Val<'a>]) -> Out<'a> {
    let overflow = || Stop::Error("integer overflow".into());
    let mut items = items.iter();
    let Some(first) = items.next() else { return Ok(Val::Int(0)) };
    items.try_fold(first.clone(), |sum, next| match (sum, next) {
        (Val::Int(a), Val::Int(b)) => a.checked_add(*b).map(Val::Int).ok_or_else(overflow),
        (Val::Uint(a), Val::Uint(b)) => a.checked_add(*b).map(Val::Uint).ok_or_else(overflow),
        (Val::Double(a), Val::Double(b)) => Ok(Val::Double(a + b)),
        (Val::Duration(a), Val::Duration(b)) => a.checked_add(*b).map(Val::Duration).ok_or_else(overflow),
        _ => Err(no_overload()),
    })
}

fn of_quantity<'a>(f: F, q: Quantity, rest: &[Val<'a>]) -> Out<'a> {
    let whole = Quantity::from_units(q.value()) == q;
    Ok(match (f, rest) {
        (F::CompareTo, [Val::Quantity(other)]) => Val::Int(q.cmp(other) as i64),
        (F::IsGreaterThan, [Val::Quantity(other)]) => Val::Bool(q > *other),
        (F::IsLessThan, [Val::Quantity(other)]) => Val::Bool(q < *other),
        (F::Add, [Val::Quantity(other)]) => Val::Quantity(q + *other),
        (F::Add, [Val::Int(other)]) => Val::Quantity(q + Quantity::from_units(*other)),
        (F::Sub, [Val::Quantity(other)]) => Val::Quantity(q - *other),
        (F::Sub, [Val::Int(other)]) => Val::Quantity(q - Quantity::from_units(*other)),
        (F::IsInteger, []) => Val::Bool(whole),
        (F::AsInteger, []) if whole => Val::Int(q.value()),
        (F::AsInteger, []) => return Err(Stop::Error("cannot convert value to integer".into())),
        (F::AsApproximateFloat, []) => Val::Double(q.approximate()),
        (F::Sign, []) => Val::Int(q.cmp(&Quantity::default()) as i64),
        _ => return Err(no_overload()),
    })
}

fn of_ip<'a>(f: F, ip: IpAddr) -> Out<'a> {
    Ok(match f {
        F::Family => Val::Int(if ip.is_ipv4() { 4 } else { 6 }),
        F::IsUnspecified => Val::Bool(ip.is_unspecified()),
        F::IsLoopback => Val::Bool(ip.is_loopback()),
        F::IsLinkLocalMulticast => Val::Bool(net::is_link_local_multicast(ip)),
        F::IsLinkLocalUnicast => Val::Bool(net::is_link_local(ip)),
        F::IsGlobalUnicast => Val::Bool(net::is_global_unicast(ip)),
        F::ToText => Val::text(ip.to_string()),
        _ => return Err(no_overload()),
    })
}

fn of_cidr<'a>(f: F, cidr: Cidr, rest: &[Val<'a>]) -> Out<'a> {
    Ok(match (f, rest) {
        (F::ContainsIp, [Val::Text(text)]) => Val::Bool(cidr.holds(said(net::ip(text))?)),
        (F::ContainsIp, [Val::Ip(ip)]) => Val::Bool(cidr.holds(*ip)),
        (F::ContainsCidr, [Val::Text(text)]) => Val::Bool(cidr.holds_all(said(Cidr::parse(text))?)),
        (F::ContainsCidr, [Val::Cidr(other)]) => Val::Bool(cidr.holds_all(*other)),
        (F::Ip, []) => Val::Ip(cidr.ip),
        (F::PrefixLength, []) => Val::Int(i64::from(cidr.bits)),
        (F::Masked, []) => Val::Cidr(cidr.masked()),
        (F::ToText, []) => Val::text(cidr.to_string()),
        _ => return Err(no_overload()),
    })
}

fn of_url<'a>(f: F, url: &std::rc::Rc<Url>) -> Out<'a> {
    Ok(match f {
        F::GetScheme => Val::text(&*url.scheme),
        F::GetHost => Val::text(&*url.host),
        F::GetHostname => Val::text(url.hostname()),
        F::GetPort => Val::text(url.port()),
        F::GetEscapedPath => Val::text(&*url.path),
        F::GetQuery => {
            let mut out: Vec<(Val<'a>, Val<'a>)> = Vec::new();
            for (key, _) in &url.query {
                let is_there = out.iter().any(|(k, _)| matches!(k, Val::Text(t) if **t == **key));
                if !is_there {
                    let all = url.query.iter().filter(|(k, _)| k == key).map(|(_, v)| Val::text(&**v));
                    out.push((Val::text(&**key), Val::List(all.collect())));
                }
            }
            Val::Map(out.into())
        }
        _ => return Err(no_overload()),
    })
}

/// Values made of others; None: not such a function.
fn converted<'a>(f: F, values: &[Val<'a>]) -> Option<Out<'a>> {
    let [of] = values else { return None };
    let range = |what: &str| Stop::Error(format!("{what} out of range"));
    let text = if let Val::Text(text) = of { Some(&**text) } else { None };
    Some(match (f, of, text) {
        (F::ToInt, Val::Int(_), _)
        | (F::ToUint, Val::Uint(_), _)
        | (F::ToDouble, Val::Double(_), _)
        | (F::ToBool, Val::Bool(_), _)
        | (F::ToBytes, Val::Bytes(_), _)
        | (F::ToDuration, Val::Duration(_), _)
        | (F::ToTime, Val::Time(_), _) => Ok(of.clone()),
        (F::ToInt, Val::Uint(n), _) => i64::try_from(*n).map(Val::Int).map_err(|_| range("integer")),
        (F::ToInt, Val::Double(n), _) if n.abs() < 9.2e18 => Ok(Val::Int(*n as i64)),
        (F::ToInt | F::ToUint, Val::Double(_), _) if f == F::ToInt => Err(range("integer")),
        (F::ToInt, Val::Time(t), _) => Ok(Val::Int(t.unix())),
        (F::ToInt, _, Some(text)) => text.parse().map(Val::Int).map_err(|_| cannot(of, "int")),
        (F::ToUint, Val::Int(n), _) => u64::try_from(*n).map(Val::Uint).map_err(|_| range("unsigned integer")),
        (F::ToUint, Val::Double(n), _) if *n > -1.0 && *n < 1.8e19 => Ok(Val::Uint(*n as u64)),
        (F::ToUint, Val::Double(_), _) => Err(range("unsigned integer")),
        (F::ToUint, _, Some(text)) => text.parse().map(Val::Uint).map_err(|_| cannot(of, "uint")),
        (F::ToDouble, Val::Int(n), _) => Ok(Val::Double(*n as f64)),
        (F::ToDouble, Val::Uint(n), _) => Ok(Val::Double(*n as f64)),
        (F::ToDouble, _, Some(text)) => text.parse().map(Val::Double).map_err(|_| cannot(of, "double")),
        (F::ToText, ..) => texts::shown(of).map(Val::text).ok_or_else(|| cannot(of, "string")),
        (F::ToBool, _, Some("true" | "True" | "TRUE" | "t" | "1")) => Ok(Val::Bool(true)),
        (F::ToBool, _, Some("false" | "False" | "FALSE" | "f" | "0")) => Ok(Val::Bool(false)),
        (F::ToBool, ..) => Err(cannot(of, "bool")),
        (F::ToBytes, _, Some(text)) => Ok(Val::Bytes(text.as_bytes().into())),
        (F::ToDuration, _, Some(text)) => {
            times::duration(text).map(Val::Duration).ok_or_else(|| cannot(of, "duration"))
        }
        (F::ToTime, Val::Int(n), _) => Ok(Val::Time(Time::from_unix(*n))),
        (F::ToTime, _, Some(text)) => Time::parse(text).map(Val::Time).ok_or_else(|| cannot(of, "timestamp")),
        (F::Quantity, _, Some(text)) => {
            text.parse().map(Val::Quantity).map_err(|e: crate::quantity::ParseQuantityError| Stop::Error(e.to_string()))
        }
        (F::IsQuantity, _, Some(text)) => Ok(Val::Bool(text.parse::<Quantity>().is_ok())),
        (F::Ip, _, Some(text)) => said(net::ip(text)).map(Val::Ip),
        (F::IsIp, _, Some(text)) => Ok(Val::Bool(net::ip(text).is_ok())),
        (F::IsCanonical, _, Some(text)) => said(net::ip(text)).map(|ip| Val::Bool(ip.to_string() == text)),
        (F::Cidr, _, Some(text)) => said(Cidr::parse(text)).map(Val::Cidr),
        (F::IsCidr, _, Some(text)) => Ok(Val::Bool(Cidr::parse(text).is_ok())),
        (F::Url, _, Some(text)) => said(Url::parse(text)).map(|url| Val::Url(url.into())),
        (F::IsUrl, _, Some(text)) => Ok(Val::Bool(Url::parse(text).is_ok())),
        _ => return None,
    })
}

fn cannot(of: &Val<'_>, to: &str) -> Stop {
    let shown = texts::shown(of).unwrap_or_default();
    Stop::Error(format!("type conversion error from '{}' to '{to}': {shown:?}", of.type_name()))
}

fn of_optional<'a>(f: F, values: &[Val<'a>]) -> Out<'a> {
    Ok(match (f, values) {
        (F::OptionalNone, []) => Val::Optional(None),
        (F::OptionalOf, [of]) => Val::Optional(Some(of.clone().into())),
        (F::OptionalOfNonZero, [of]) => {
            let zero = match of {
                Val::Null | Val::Bool(false) | Val::Int(0) | Val::Uint(0) => true,
                Val::Double(n) => *n == 0.0,
                of => of.len() == Some(0),
            };
            Val::Optional((!zero).then(|| of.clone().into()))
        }
        (F::HasValue, [Val::Optional(of)]) => Val::Bool(of.is_some()),
        (F::Value, [Val::Optional(Some(of))]) => (**of).clone(),
        (F::Value, [Val::Optional(None)]) => return Err(Stop::Error("optional.none() dereference".into())),
        (F::OrValue, [Val::Optional(of), other]) => of.as_ref().map_or_else(|| other.clone(), |of| (**of).clone()),
        (F::Or, [Val::Optional(of), other @ Val::Optional(_)]) => {
            if of.is_some() {
                Val::Optional(of.clone())
            } else {
                other.clone()
            }
        }
        _ => return Err(no_overload()),
    })
}
