use super::*;

fn after(start: Instant, ms: u64) -> Instant {
    start + Duration::from_millis(ms)
}

#[test]
fn the_line_counts_layers_and_bytes() {
    let shown = Shown::new("web");
    assert_eq!(shown.name, "web: ");
    let start = Instant::now();
    let mut state = State::new(start);
    let digest = mote_images::Digest::of(b"x");
    assert!(state.hear(Progress::Resolved { manifest: digest, layers: 2, bytes: 50_000 }, start).is_some());
    assert_eq!(state.line(), "0 of 2 layers, 0 B of 50 kB");
    assert!(state.hear(Progress::Bytes { index: 1, done: 10_000 }, start).is_none());
    assert!(state.hear(Progress::Bytes { index: 1, done: 20_000 }, after(start, 1000)).is_none());
    assert!(state.hear(Progress::Bytes { index: 9, done: 20_000 }, start).is_none(), "a layer that is not there");
    assert_eq!(state.line(), "0 of 2 layers, 20 kB of 50 kB, 10 kB/s, 3 s left");
    assert!(state.hear(Progress::Done { id: digest }, start).is_some());
}

#[test]
fn what_was_here_already_has_no_last_line() {
    let now = Instant::now();
    assert!(State::new(now).hear(Progress::Done { id: mote_images::Digest::of(b"x") }, now).is_none());
}

#[test]
fn a_push_counts_what_the_registry_has() {
    let start = Instant::now();
    let mut state = State::new(start);
    let digest = mote_images::Digest::of(b"x");
    let name: String = digest.hex().chars().take(12).collect();
    for progress in [
        Progress::Resolved { manifest: digest, layers: 3, bytes: 600_000 },
        Progress::Pushed { index: 0, digest, bytes: 100_000, present: true },
        // dropped here: fetched, then uploaded
        Progress::Layer { index: 1, digest, bytes: 200_000 },
        Progress::Bytes { index: 1, done: 200_000 },
        Progress::Layer { index: 1, digest, bytes: 200_000 },
        Progress::Bytes { index: 1, done: 50_000 },
    ] {
        state.hear(progress, start);
    }
    assert_eq!(
        state.picture(24, 200),
        [
            format!("  {name}  is there already"),
            format!("  {name}  [=====               ] 50 kB of 200 kB"),
            "  -             waiting".to_owned(),
            "1 of 3 layers, 150 kB of 600 kB".to_owned(),
        ]
    );
    state.hear(Progress::Pushed { index: 1, digest, bytes: 200_000, present: false }, start);
    state.hear(Progress::Pushed { index: 2, digest, bytes: 300_000, present: false }, start);
    assert_eq!(state.picture(24, 200)[1..4][0], format!("  {name}  [====================] 200 kB, done"));
    assert_eq!(state.line(), "3 of 3 layers, 600 kB of 600 kB");
}

#[test]
fn each_layer_has_its_line() {
    let start = Instant::now();
    let mut state = State::new(start);
    let digest = mote_images::Digest::of(b"x");
    for progress in [
        Progress::Resolved { manifest: digest, layers: 4, bytes: 300_000 },
        Progress::Present { index: 0, diff_id: format!("sha256:{}", "0".repeat(64)).parse().unwrap() },
        Progress::Layer { index: 1, digest, bytes: 100_000 },
        Progress::Layer { index: 2, digest, bytes: 200_000 },
        Progress::Bytes { index: 1, done: 50_000 },
    ] {
        state.hear(progress, start);
    }
    // What is read again from the disk is no speed of the link.
    let said = state.hear(Progress::Continued { index: 2, at: 150_000 }, start).unwrap();
    assert!(said.contains("byte 150000 of layer 2"), "{said}");
    state.hear(Progress::Bytes { index: 2, done: 64_000 }, after(start, 700));
    let name: String = digest.hex().chars().take(12).collect();
    assert_eq!(
        state.picture(24, 200),
        [
            "  -             is here already".to_owned(),
            format!("  {name}  [==========          ] 50 kB of 100 kB"),
            format!("  {name}  [===============     ] 150 kB of 200 kB"),
            "  -             waiting".to_owned(),
            "1 of 4 layers, 200 kB of 300 kB".to_owned(),
        ]
    );
    // A small terminal shows what is under way, and nothing wider than it is.
    let small = state.picture(4, 30);
    assert_eq!(small.len(), 3);
    assert!(small.iter().all(|line| line.chars().count() <= 30) && small[0].contains(&name));
    // Each drawing goes over the last.
    assert!(!redrawn(&mut state, false, None).contains("\x1b["));
    assert!(redrawn(&mut state, true, Some("news; ".to_owned())).starts_with("\x1b[5A\r\x1b[Jnews\n"));
    assert_eq!(state.drawn, 0);
}
