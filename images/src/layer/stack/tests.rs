use super::*;

fn inner(text: &str) -> Inner {
    Inner::new(text.as_bytes()).unwrap()
}

/// One layer, drawn: `d/ 700` a described folder, `d/ ?` one left open, `d/ ?!` the same, opaque, `f` a file, `-f` a whiteout,
/// `h > t` an open link.
fn layer(picture: &str) -> (BTreeMap<Inner, Found>, Vec<Inner>, Open) {
    let (mut there, mut opaque, mut open) = (BTreeMap::new(), Vec::new(), Open::default());
    let dir = |mode| Found::Dir { fresh: false, attributes: Attributes { mode, ..Attributes::default() } };
    there.insert(inner(""), dir(0o755));
    for line in picture.split(';').map(str::trim).filter(|line| !line.is_empty()) {
        let (path, rest) = line.split_once(' ').unwrap_or((line, ""));
        if let Some(target) = rest.strip_prefix("> ") {
            open.links.insert(inner(path), inner(target));
        } else if let Some(hidden) = path.strip_prefix('-') {
            there.insert(inner(hidden), Found::Whiteout);
        } else if path.ends_with('/') {
            if rest.ends_with('!') {
                opaque.push(inner(path.trim_start_matches('/')));
            }
            let path = inner(path.trim_start_matches('/'));
            match u32::from_str_radix(rest.trim_end_matches('!'), 8) {
                Ok(mode) => drop(there.insert(path, dir(mode))),
                Err(_) => {
                    there.insert(path.clone(), dir(0o755));
                    open.folders.insert(path);
                }
            }
        } else {
            there.insert(inner(path), Found::Other);
        }
    }
    (there, opaque, open)
}

struct Fake(Vec<(BTreeMap<Inner, Found>, Vec<Inner>)>);

impl Stack for Fake {
    fn look(&mut self, layer: usize, path: &Inner) -> io::Result<Found> {
        let (there, opaque) = &self.0[layer];
        let mut hidden = false;
        let mut parents = Vec::new();
        let mut parent = path.clone();
        while !parent.is_root() {
            parent = parent.split().0;
            parents.push(parent.clone());
        }
        for parent in parents.iter().rev() {
            match there.get(parent) {
                Some(Found::Dir { .. }) => hidden |= opaque.contains(parent),
                None => break,
                Some(_) => return Ok(Found::Hidden),
            }
        }
        Ok(match there.get(path) {
            None if hidden => Found::Hidden,
            None => Found::Nothing,
            Some(Found::Dir { attributes, .. }) => Found::Dir { fresh: hidden, attributes: attributes.clone() },
            Some(found) => found.clone(),
        })
    }
}

/// The plan for layers drawn base first, drawn again.
fn planned(layers: &[&str]) -> String {
    let (mut fake, mut open) = (Fake(Vec::new()), Vec::new());
    for picture in layers {
        let (there, opaque, of) = layer(picture);
        fake.0.push((there, opaque));
        open.push(of);
    }
    match plan(&open, &mut fake) {
        Err(e) => e.to_string(),
        Ok(plan) => {
            let folders =
                plan.folders.iter().map(|(path, a)| format!("{}/ {:o}", path.text().trim_matches('/'), a.mode));
            let links = plan.links.iter().map(|(path, (layer, of))| format!("{} > {layer}:{}", path.text(), of.text()));
            folders.chain(links).collect::<Vec<_>>().join("; ")
        }
    }
}

#[test]
fn folders_take_the_attributes_of_whoever_describes_them() {
    for (layers, want) in [
        (&["d/ 700", "d/ ?; d/f"][..], "/ 755; d/ 700"),
        // nothing to say: the uppermost describes it, or nobody does, or it says the same
        (&["d/ ?", "d/ 700; d/f"], ""),
        (&["d/ ?", "d/ ?"], ""),
        (&["d/ 755", "d/ ?"], ""),
        (&["d/ ?; d/f"], ""),
        // through layers that leave it open, or do not have it
        (&["d/ 711", "d/ ?", "x", "d/ ?"], "/ 755; d/ 711"),
        (&["d/ 711", "d/ 700", "d/ ?"], "/ 755; d/ 700"),
        // the parents of what is set come with their own attributes
        (&["a/ 750; a/b/ 700", "a/ ?; a/b/ ?"], "/ 755; a/ 750; a/b/ 700"),
        (&["a/ 755; a/b/ 700", "a/ ?; a/b/ ?", "a/ 711"], "/ 755; a/ 711; a/b/ 700"),
        // an opaque folder keeps its own attributes, those within are new
        (&["d/ 700; d/e/ 700", "d/ ?!; d/e/ ?"], "/ 755; d/ 700"),
        // hidden in between
        (&["d/ 700", "-d", "d/ ?"], ""),
        (&["d/ 700", "d", "d/ ?"], ""),
        (&["p/ 755; p/d/ 700", "-p", "p/ ?; p/d/ ?"], ""),
        (&["d/ 700", "d/ ?", "-d"], ""),
        (&["d/ 700", "d/ ?", "d"], ""),
        // the root is a folder like others
        (&["/ 711", "/ ?; f"], "/ 711"),
    ] {
        assert_eq!(planned(layers), want, "{layers:?}");
    }
}

#[test]
fn links_find_their_file_below_and_show_only_where_nothing_lies_upon() {
    for (layers, want) in [
        (&["t", "h > t"][..], "/ 755; h > 0:t"),
        (&["d/ 700; d/t", "x/ 711; x/h > d/t"], "/ 755; x/ 711; x/h > 0:d/t"),
        // the nearest below counts, not what follows in the same layer; else that
        (&["t", "t", "h > t"], "/ 755; h > 1:t"),
        (&["t", "h > t; t"], "/ 755; h > 0:t"),
        (&["x", "h > t; t"], "/ 755; h > 1:t"),
        (&["h > t; t"], "/ 755; h > 0:t"),
        // links of links
        (&["t", "h > t", "i > h"], "/ 755; h > 0:t; i > 0:t"),
        // the target may go afterwards
        (&["t", "h > t", "-t"], "/ 755; h > 0:t"),
        // replaced, hidden, or its folder is
        (&["t", "h > t", "h"], ""),
        (&["t", "h > t", "-h"], ""),
        (&["t; u", "h > t", "h > u"], "/ 755; h > 0:u"),
        (&["t; d/ 700", "d/ ?; d/h > t", "-d"], ""),
        (&["t; d/ 755", "d/ ?; d/h > t", "d/ ?!"], ""),
        // refused
        (&["x", "h > t"], "entry \"h\": hard link to \"t\", which is no file of this layer or those below"),
        (&["t", "-t", "h > t"], "entry \"h\": hard link to \"t\", which is no file of this layer or those below"),
        (&["t/ 700", "h > t"], "entry \"h\": hard link to \"t\", which is no file of this layer or those below"),
        (
            &["d/ 700; d/t", "d", "h > d/t"],
            "entry \"h\": hard link to \"d/t\", which is no file of this layer or those below",
        ),
    ] {
        assert_eq!(planned(layers), want, "{layers:?}");
    }
}
