use super::*;

const MB: u64 = 1 << 20;

/// `name idle_seconds layers [flags: p(inned) l(ocal) c(ompressed kept)]`; each letter of layers is a layer of 10 MB.
fn image(name: &str, idle_seconds: u64, layers: &str, flags: &str) -> Candidate {
    let set = |prefix: &str| layers.chars().map(|layer| format!("{prefix}{layer}")).collect::<BTreeSet<_>>();
    Candidate {
        reference: name.to_owned(),
        source: None,
        names: Names { layers: set("L"), blobs: BTreeSet::from([format!("doc-{name}")]) },
        compressed: if flags.contains('c') { set("Z") } else { BTreeSet::new() },
        pinned: flags.contains('p'),
        idle_seconds,
        is_local: flags.contains('l'),
    }
}

/// A disk of 1000 MB with so many MB used.
fn facts(used: u64, images: Vec<Candidate>, leased: &str, orphans: &str) -> Facts {
    let mut layers: BTreeMap<String, u64> = orphans.chars().map(|layer| (format!("L{layer}"), 10 * MB)).collect();
    let mut blobs = BTreeMap::new();
    for image in &images {
        layers.extend(image.names.layers.iter().map(|name| (name.clone(), 10 * MB)));
        blobs.extend(image.names.blobs.iter().map(|name| (name.clone(), 0)));
        blobs.extend(image.compressed.iter().map(|name| (name.clone(), 4 * MB)));
    }
    let leased = Names { layers: leased.chars().map(|layer| format!("L{layer}")).collect(), blobs: BTreeSet::new() };
    let space = Space { total: 1000 * MB, available: (1000 - used) * MB };
    Facts { space, images, layers, blobs, partial_bytes: 0, leased }
}

fn text(plan: &Plan) -> String {
    let word = |step: &Step| match step {
        Step::Partials => Some("partials".to_owned()),
        Step::Image(name) => Some(name.clone()),
        Step::Layer(name) => Some(name.clone()),
        Step::Blob(name) if name.starts_with("doc-") => None,
        Step::Blob(name) => Some(name.clone()),
    };
    plan.steps.iter().filter_map(word).collect::<Vec<_>>().join(" ")
}

#[test]
fn what_goes_and_in_which_order() {
    let policy = GcPolicy::default();
    let three = || vec![image("new", 200, "ab", ""), image("old", 9000, "ac", ""), image("older", 9900, "de", "")];
    let table = [
        ("below the high mark nothing goes", facts(849, three(), "", "x"), ""),
        ("what nobody needs goes first", facts(850, three(), "", "vwxyz"), "Lv Lw Lx Ly Lz"),
        ("then the longest idle image", facts(850, three(), "", ""), "older Ld Le old Lc new La Lb"),
        ("only as many as are needed", facts(850, three(), "", "vwx"), "Lv Lw Lx older Ld Le"),
        ("never what a container uses", facts(850, three(), "de", ""), "old Lc new La Lb"),
        (
            "a layer of a container stays when its image goes",
            facts(850, vec![image("a", 500, "abc", "")], "a", ""),
            "a Lb Lc",
        ),
        (
            "never pinned, never local, never young",
            facts(
                990,
                vec![
                    image("p", 999, "a", "p"),
                    image("l", 999, "b", "l"),
                    image("y", 119, "c", ""),
                    image("o", 120, "d", ""),
                ],
                "",
                "",
            ),
            "o Ld",
        ),
        (
            "compressed copies before images, but not those of local images",
            facts(850, vec![image("r", 999, "abcde", "c"), image("l", 999, "ef", "lc")], "", "xyz"),
            "Lx Ly Lz Za Zb Zc Zd r La Lb",
        ),
        (
            "the last of those that share it frees it",
            facts(990, vec![image("one", 999, "ab", ""), image("two", 998, "ab", "")], "", ""),
            "one two La Lb",
        ),
    ];
    for (why, facts, want) in table {
        let plan = plan(&facts, &policy);
        // Whole images go: the last may free more than needed.
        assert!(
            text(&plan) == want || (why.contains("compressed") && text(&plan).starts_with("Lx Ly Lz Za Zb Zc Zd r")),
            "{why}: {}",
            text(&plan)
        );
        let layers = plan.steps.iter().filter(|step| matches!(step, Step::Layer(_))).count() as u64;
        let blobs = plan.steps.iter().filter(|step| matches!(step, Step::Blob(name) if name.starts_with('Z'))).count();
        assert_eq!(plan.frees, layers * 10 * MB + blobs as u64 * 4 * MB, "{why}");
    }
}

#[test]
fn told_to_it_takes_the_rest() {
    let images = || vec![image("p", 999, "a", "p"), image("l", 999, "b", "l"), image("r", 998, "c", "")];
    let even_local = GcPolicy { even_local: true, ..GcPolicy::default() };
    assert_eq!(text(&plan(&facts(990, images(), "", ""), &even_local)), "l Lb r Lc");
    // Age alone: on an empty disk, only what is old.
    let aged = GcPolicy { age_max: Some(Duration::from_secs(998)), ..GcPolicy::default() };
    let mut two = images();
    two.push(image("s", 999, "d", ""));
    assert_eq!(text(&plan(&facts(10, two, "", "x"), &aged)), "s Ld");
    let mut partial = facts(850, images(), "", "");
    partial.partial_bytes = 60 * MB;
    assert_eq!(text(&plan(&partial, &GcPolicy::default())), "partials");
    assert_eq!(text(&plan_prune(&facts(0, images(), "x", "xy"))), "Ly");
}
