use super::*;
use crate::tree::json;

fn schema() -> Value {
    json!({"type": "object", "properties": {
        "n": {"type": "integer"}, "f": {"type": "number"}, "s": {"type": "string"}, "b": {"type": "boolean"},
        "list": {"type": "array", "items": {"type": "integer"}},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port"],
            "items": {"type": "object", "properties": {"port": {"type": "integer"}, "name": {"type": "string"}}}},
        "map": {"type": "object", "additionalProperties": {"type": "string"}},
        "either": {"x-kubernetes-int-or-string": true},
        "when": {"type": "string", "format": "date-time"}, "time": {"type": "string", "format": "duration"},
        "bytes": {"type": "string", "format": "byte"},
        "a-b.c/d": {"type": "integer"}, "namespace": {"type": "string"}, "gone": {"type": "string"}, "none": {"type": "string", "nullable": true},
    }})
}

fn object() -> Value {
    json!({"metadata": {"name": "x"}, "n": 5, "f": 2, "s": "hello", "b": true, "list": [3, 1, 2], "set": ["a", "b"],
        "ports": [{"port": 80, "name": "web"}, {"port": 443}], "map": {"k": "v", "x.y": "z"}, "either": 7,
        "when": "2026-11-21T01:02:03Z", "time": "1h30m", "bytes": "aGk=", "a-b.c/d": 1, "namespace": "ns", "gone": null, "none": null})
}

fn run(rule: &str) -> Result<bool, String> {
    let node = Node::of_schema(&schema()).unwrap();
    let program = Program::new(rule, &node, Wanted::Truth, false)?;
    let (new, old) = (object(), json!({"n": 4, "list": [1]}));
    program.truth(&new, Old::Some(&old), &node, &mut Budget::new()).map_err(|stop| match stop {
        Stop::Error(why) => why,
        Stop::Cost => "cost".into(),
    })
}

#[test]
fn rules_that_hold() {
    for rule in [
        // Operators.
        "1 + 2 * 3 == 7 && (1 + 2) * 3 == 9 && 7 / 2 == 3 && -7 % 3 == -1",
        "self.n > 4 && self.n >= 5 && !(self.n < 5) && self.n <= 5 && self.n != 4",
        "self.f == 2.0 && self.f > 1 && self.f / 4.0 == 0.5",
        "1u + 2u == 3u && 0x10 == 16 && -9223372036854775808 < 0 && 1e3 == 1000.0 && .5 < 1",
        "true ? self.b : false",
        "'a' + \"b\" == 'ab' && 'abc' < 'abd' && r'\\n' == '\\\\n' && '''x'y''' == \"x'y\" && '\\u00e9' == 'é'",
        "b'hi' == self.bytes && size(b'\\xff') == 1",
        "[1, 2] + [3] == [1, 2, 3] && {'a': 1}['a'] == 1 && {1: 'x'}[1] == 'x' && !('b' in {'a': 1})",
        "!!true && --1 == 1",
        // Errors yield to what decides.
        "true || self.list[9] == 1",
        "self.list[9] == 1 || true",
        "!(false && 1 / 0 == 1)",
        "self.list.exists(x, x == 2 || 1 / (x - 3) == 7)",
        // Fields.
        "has(self.s) && !has(self.gone) && has(self.none) && self.none == null && self.metadata.name == 'x' && self.a__dash__b__dot__c__slash__d == 1",
        "self.__namespace__ == 'ns' && self.map['x.y'] == 'z' && 'k' in self.map && self.map.k == 'v' && has(self.map.k)",
        "self.either == 7 && type(self.either) == int && type(self.s) == string && type(self.f) == double",
        "oldSelf.n < self.n && !has(oldSelf.s)",
        "self.?gone.orValue('none') == 'none' && self.?s.hasValue() && self.map[?'no'].orValue('d') == 'd'",
        "self.?s.optMap(v, v.size()).value() == 5 && optional.none().or(optional.of(1)).value() == 1",
        "!optional.ofNonZeroValue('').hasValue()",
        // Lists.
        "self.list.all(x, x > 0) && self.list.exists(x, x == 3) && self.list.exists_one(x, x > 2)",
        "self.list.map(x, x * 2) == [6, 2, 4] && self.list.filter(x, x > 1) == [3, 2] && self.list.map(x, x > 1, x) == [3, 2]",
        "self.map.all(k, self.map[k] != '') && self.map.exists(k, k == 'x.y')",
        "self.list.sum() == 6 && self.list.min() == 1 && self.list.max() == 3 && !self.list.isSorted() && [1, 2].isSorted()",
        "self.list.indexOf(1) == 1 && [1, 1].lastIndexOf(1) == 1 && self.list.indexOf(9) == -1",
        "self.set == ['b', 'a'] && (self.set + ['b', 'c']).size() == 3 && self.ports + [{'port': 80}] != self.ports",
        "sets.contains([1, 2], [2]) && sets.equivalent([1, 2], [2, 1]) && sets.intersects([1], [1, 2])",
        "self.ports.exists(p, has(p.name) && p.name == 'web') && self.ports.all(p, p.port in [80, 443])",
        "size(self.list) == 3 && self.set.size() == 2 && size('é') == 1 && size(self.map) == 2",
        // Texts.
        "self.s.startsWith('he') && self.s.endsWith('lo') && self.s.contains('ell') && self.s.matches('^h.*o$')",
        "matches(self.s, 'l+') && self.s.find('l+') == 'll' && 'a1b22'.findAll('[0-9]+') == ['1', '22'] && 'abc'.findAll('', 2).size() == 2",
        "self.s.charAt(1) == 'e' && self.s.indexOf('l') == 2 && self.s.lastIndexOf('l') == 3 && self.s.substring(1, 3) == 'el'",
        "' A '.trim().lowerAscii() == 'a' && 'a'.upperAscii() == 'A' && 'aaa'.replace('a', 'b', 2) == 'bba'",
        "'a,b'.split(',') == ['a', 'b'] && ['a', 'b'].join('-') == 'a-b' && '%s is %d'.format(['x', 1]) == 'x is 1'",
        "strings.quote('a\"') == '\"a\\\\\"\"'",
        // Conversions.
        "int('5') == 5 && string(5) == '5' && double('1.5') == 1.5 && uint(3) == 3u && bool('true') && string(1.0) == '1'",
        "dyn(self.n) == 5.0 && string(b'hi') == 'hi' && bytes('hi') == b'hi'",
        // Times.
        "self.when > timestamp('2026-01-01T00:00:00Z') && self.when.getFullYear() == 2026 && self.when.getDayOfWeek() == 6",
        "self.time == duration('90m') && self.time.getMinutes() == 90 && self.when - self.when == duration('0s')",
        "self.when + duration('1h') > self.when && string(self.time) == '5400s'",
        // Kubernetes' own.
        "quantity('1Gi').isGreaterThan(quantity('1G')) && isQuantity('1m') && !isQuantity('x') && quantity('1k').asInteger() == 1000",
        "quantity('50k').add(20).compareTo(quantity('50020')) == 0 && quantity('-1').sign() == -1 && !quantity('1m').isInteger()",
        "isIP('::1') && ip('127.0.0.1').isLoopback() && ip('::1').family() == 6 && !ip.isCanonical('::0')",
        "cidr('10.0.0.0/8').containsIP('10.1.1.1') && cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16') && !isCIDR('10.0.0.0')",
        "url('https://a.b:80/c?q=1').getHostname() == 'a.b' && isURL('/x') && url('https://h/?a=1&a=2').getQuery()['a'] == ['1', '2']",
        // Names of macros hide what is outside.
        "[1].all(self, self == 1)",
        "// a remark\n self.b // another",
    ] {
        assert_eq!(run(rule), Ok(true), "{rule}");
    }
}

#[test]
fn rules_that_end_in_an_error() {
    for (rule, why) in [
        ("self.list[3] == 1", "index out of bounds: 3"),
        ("self.map['no'] == ''", "no such key: no"),
        ("self.gone == ''", "no such key: gone"),
        ("1 / (self.n - 5) == 1", "division by zero"),
        ("self.n % 0 == 1", "modulus by zero"),
        ("9223372036854775807 + self.n > 0", "integer overflow"),
        ("self.either + 'a' == ''", "no such overload"),
        ("self.either", "no such overload"),
        ("int(self.s) == 1", "type conversion error from 'string' to 'int': \"hello\""),
        ("[1, 2].filter(x, x > 5).min() == 1", "min called on empty list"),
        ("optional.none().value() == 1", "optional.none() dereference"),
        ("self.list.all(x, self.list.all(y, self.list[x + y] > 0))", "index out of bounds: 6"),
    ] {
        assert_eq!(run(rule), Err(why.into()), "{rule}");
    }
}

#[test]
fn what_is_no_rule_is_refused() {
    for (rule, why) in [
        ("self.nope == 1", "1:5: undefined field 'nope'\n | self.nope == 1\n | ....^"),
        ("true &&\n  self.nope", "2:7: undefined field 'nope'\n |   self.nope\n | ......^"),
        ("nope == 1", "1:1: undeclared reference to 'nope' (in container '')"),
        ("self.s.nope()", "undeclared reference to 'nope'"),
        ("self.metadata.labels == {}", "undefined field 'labels'"),
        ("self.n == 'a'", "found no matching overload for '_==_' applied to '(int, string)'"),
        ("self.n + self.s == ''", "found no matching overload for '_+_' applied to '(int, string)'"),
        ("self.s.startsWith(1)", "found no matching overload for 'startsWith' applied to 'string.(int)'"),
        ("self.n.all(x, x)", "cannot be range of a comprehension"),
        ("self.list.all(1, true)", "argument must be a simple name"),
        ("self.s in self.n", "found no matching overload for '@in'"),
        ("self.s && true", "found no matching overload for 'bool'"),
        ("has(self)", "invalid argument to has() macro"),
        ("self.s.matches('(')", "invalid matches argument"),
        ("semver('1.0.0') == semver('1.0.1')", "function 'semver' is not supported by this server"),
        ("authorizer.group('').resource('pods').check('get').allowed()", "undeclared reference to 'authorizer'"),
        ("self.n", "cel expression must evaluate to a bool"),
        ("self.s ==", "Syntax error"),
        ("'open", "unterminated string"),
        ("'\\q'", "invalid escape sequence"),
        ("self.list.for(1)", "undeclared reference to 'for'"),
        ("for == 1", "reserved identifier: for"),
        ("Type{a: 1}", "messages are not supported"),
        ("1 @ 2", "token recognition error at: '@'"),
        ("99999999999999999999 > 1", "invalid int literal"),
        ("(true ? 1 : 'a') == 1", "found no matching overload for '_?_:_'"),
        ("", "mismatched input '<EOF>'"),
    ] {
        let told = run(rule).expect_err(rule);
        assert!(told.contains(why), "{rule}: {told}");
    }
}

#[test]
fn limits_hold() {
    for bad in [
        "(".repeat(5_000),
        "!(".repeat(5_000),
        "1".to_owned() + &"+1".repeat(500) + "==1",
        "[".repeat(9_000),
        "x".repeat(fault::TEXT_MAX + 1),
        "-".repeat(9_000),
    ] {
        assert!(run(&bad).is_err());
    }
    assert_eq!(run(&("true".to_owned() + &"&& true".repeat(1_000))), Ok(true), "what is joined is not nested");
    // What grows is stopped: by steps, not by the clock.
    for bad in [
        "[1,2,3,4,5,6,7,8,9,10].map(a, [1,2,3,4,5,6,7,8,9,10].map(b, [1,2,3,4,5,6,7,8,9,10].map(c, [1,2,3,4,5,6,7,8,9,10].map(d, [1,2,3,4,5,6,7,8,9,10].map(e, [1,2,3,4,5,6,7,8,9,10].map(f, a)))))).size() > 0",
        "['aaaaaaaaaa'].map(a, a+a+a+a+a+a+a+a+a+a).map(a, a+a+a+a+a+a+a+a+a+a).map(a, a+a+a+a+a+a+a+a+a+a).map(a, a+a+a+a+a+a+a+a+a+a).map(a, a+a+a+a+a+a+a+a+a+a).map(a, a+a+a+a+a+a+a+a+a+a).map(a, a+a+a+a+a+a+a+a+a+a).size() > 0",
        "['aaaaaaaaaa'].map(a, a.replace('', 'aaaaaaaaaaaaaaaaaaaaaaa')).map(a, a.replace('', a)).map(a, a.replace('', a)).map(a, a.replace('', a)).size() > 0",
        "'%s%s'.format(['aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', 'b']).replace('', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa').replace('', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa').replace('', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa').replace('', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa').matches('(a*)*b')",
    ] {
        assert_eq!(run(bad), Err("cost".into()), "{bad}");
    }
}

#[test]
fn old_values_may_be_optional() {
    let node = Node::of_schema(&schema()).unwrap();
    let rule = "!oldSelf.hasValue() || oldSelf.value().n <= self.n";
    let program = Program::new(rule, &node, Wanted::Truth, true).unwrap();
    assert!(program.uses_old);
    let new = object();
    for (old, want) in [(None, true), (Some(json!({"n": 4})), true), (Some(json!({"n": 6})), false)] {
        assert_eq!(program.truth(&new, Old::Optional(old.as_ref()), &node, &mut Budget::new()), Ok(want));
    }
    assert!(Program::new(rule, &node, Wanted::Truth, false).is_err());
    assert!(Program::new("oldSelf.?n.orValue(1) == 1", &node, Wanted::Truth, true).is_ok());
}

/// In the manner of what well-known definitions demand (Gateway API, Karpenter, Istio, Cluster API).
#[test]
fn rules_of_known_definitions_are_understood() {
    let text = json!({"type": "string"});
    let listener = json!({"type": "object", "properties": {"name": text, "port": {"type": "integer"}, "protocol": text, "hostname": text,
        "tls": {"type": "object", "properties": {"mode": text}}}});
    let schema = json!({"type": "object", "properties": {
        "listeners": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"], "items": listener},
        "group": text, "kind": text, "type": text, "port": {"type": "integer"}, "keys": {"type": "array", "items": text},
        "path": {"type": "object", "properties": {"type": text, "value": text}},
        "labels": {"type": "object", "additionalProperties": text}, "a": text, "b": text,
    }});
    let node = Node::of_schema(&schema).unwrap();
    let object = json!({"group": "", "kind": "Service", "type": "x", "port": 80, "keys": ["karpenter.sh/a", "example.com/b"],
        "path": {"type": "Exact", "value": "/a"}, "labels": {"k": "v"}, "a": "1", "listeners": [
            {"name": "one", "port": 80, "protocol": "HTTP", "hostname": "a.example.com"},
            {"name": "two", "port": 443, "protocol": "HTTPS", "tls": {"mode": "Terminate"}}]});
    for rule in [
        "self.listeners.all(l, l.protocol in ['HTTP', 'TCP', 'UDP'] ? !has(l.tls) : true)",
        "self.listeners.all(l, (l.protocol == 'HTTPS' && has(l.tls)) ? (l.tls.mode == '' || l.tls.mode == 'Terminate') : true)",
        "self.listeners.all(l1, self.listeners.exists_one(l2, l1.name == l2.name))",
        "self.listeners.all(l1, self.listeners.exists_one(l2, l1.port == l2.port && l1.protocol == l2.protocol && (has(l1.hostname) && has(l2.hostname) ? l1.hostname == l2.hostname : !has(l1.hostname) && !has(l2.hostname))))",
        "(size(self.group) == 0 && self.kind == 'Service') ? has(self.port) : true",
        "self.path.type != null ? self.path.value.startsWith('/') : true",
        "(self.path.type in ['Exact', 'PathPrefix']) ? self.path.value.matches(r\"\"\"^(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|[%][0-9a-fA-F]{2})+$\"\"\") : true",
        "self.keys.all(x, x in ['karpenter.sh/a'] || !x.find('^([^/]+)').endsWith('karpenter.sh'))",
        "[has(self.a), has(self.b)].exists_one(x, x) && [has(self.a), has(self.b)].filter(x, x == true).size() <= 1",
        "(has(self.a) ? 1 : 0) + (has(self.b) ? 1 : 0) <= 1",
        "self.labels.all(key, size(self.labels[key]) <= 63) && self.metadata.name.size() < 64",
        "self.type == oldSelf.type && (!has(oldSelf.a) || has(self.a))",
        "!self.listeners.exists(l, has(l.tls) && l.tls.mode == 'Passthrough' && l.port == 80)",
        "self.listeners.filter(l, l.protocol == 'HTTP').map(l, l.port).all(p, p == 80 || p == 8080)",
    ] {
        let program = Program::new(rule, &node, Wanted::Truth, false).unwrap_or_else(|why| panic!("{rule}: {why}"));
        let whole = {
            let mut o = object.clone();
            o["metadata"] = json!({"name": "x"});
            o
        };
        assert_eq!(program.truth(&whole, Old::Some(&whole), &node, &mut Budget::new()), Ok(true), "{rule}");
    }
}
