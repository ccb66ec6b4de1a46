//! Pulls, imports and pushes as people see them on stderr. The command line on a terminal: a line for each layer, redrawn. The agent on a
//! terminal: one line, redrawn, since others write there too. Elsewhere a line at the start, one every ten seconds, one at the end.

mod meter;

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use meter::Meter;
use mote_images::{Digest, Observer, Progress};

/// Between two drawings.
const REDRAW: Duration = Duration::from_millis(200);
/// Between two lines where nothing can be redrawn.
const LINE: Duration = Duration::from_secs(10);
/// Takes what stands in the line away.
pub(crate) const CLEAR: &str = "\r\x1b[K";
/// Lines of a terminal that does not say how many it has.
const ROWS: usize = 24;

/// Shows one operation.
pub(crate) struct Shown {
    /// In front of each line: the image; empty when there is only one.
    name: String,
    way: Way,
    state: Mutex<State>,
}

#[derive(Clone, Copy, PartialEq)]
enum Way {
    /// A line per layer.
    Layers,
    /// One line that is redrawn.
    Line,
    /// Lines, few.
    Lines,
}

struct State {
    total: u64,
    ended: usize,
    layers: Vec<LayerLine>,
    meter: Meter,
    said: Instant,
    /// Lines on the terminal that are to be drawn over.
    drawn: usize,
}

#[derive(Clone, Default)]
struct LayerLine {
    /// The beginning of its digest.
    name: String,
    size: u64,
    done: u64,
    phase: Phase,
    meter: Meter,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Phase {
    #[default]
    Waiting,
    Coming,
    Ready,
    Present,
    /// The registry has it already.
    There,
}

impl Shown {
    pub(crate) fn new(name: &str) -> Shown {
        let is_tty = std::io::stderr().is_terminal();
        let way = match (is_tty, name.is_empty()) {
            (true, true) => Way::Layers,
            (true, false) => Way::Line,
            (false, _) => Way::Lines,
        };
        let name = if name.is_empty() { String::new() } else { format!("{name}: ") };
        Shown { name, way, state: Mutex::new(State::new(Instant::now())) }
    }
}

impl State {
    fn new(now: Instant) -> State {
        State { total: 0, ended: 0, layers: Vec::new(), meter: Meter::default(), said: now, drawn: 0 }
    }

    /// Takes a fact in; whether a line of its own is due wherever lines are not redrawn, and what it begins with.
    fn hear(&mut self, progress: Progress, now: Instant) -> Option<String> {
        match progress {
            Progress::Resolved { layers, bytes, .. } => {
                self.total = bytes;
                self.layers.resize(layers, LayerLine::default());
                return Some(String::new());
            }
            Progress::Present { index, .. } => self.end(index, Phase::Present),
            Progress::Extracted { index, .. } => self.end(index, Phase::Ready),
            Progress::Pushed { index, digest, bytes, present } => {
                if let Some(layer) = self.layers.get_mut(index) {
                    layer.begin(&digest, bytes);
                    layer.done = bytes;
                }
                self.end(index, if present { Phase::There } else { Phase::Ready });
            }
            Progress::Layer { index, digest, bytes } => {
                if let Some(layer) = self.layers.get_mut(index) {
                    // A push may begin with fetching what was dropped here.
                    layer.begin(&digest, bytes);
                }
            }
            Progress::Bytes { index, done } => {
                if let Some(layer) = self.layers.get_mut(index)
                    && done > layer.done
                {
                    layer.done = done;
                    layer.meter.feed(done, now);
                    if layer.done == layer.size && layer.size > 0 && layer.phase == Phase::Coming {
                        layer.meter = Meter::default();
                    }
                }
                self.meter.feed(self.done(), now);
            }
            Progress::Continued { index, at } => {
                if let Some(layer) = self.layers.get_mut(index) {
                    layer.done = at; // what is read again from the disk says nothing about the link
                    layer.meter.begin(at, now);
                }
                self.meter.begin(self.done(), now);
                return Some(format!("goes on at byte {at} of layer {index} where an earlier pull stopped; "));
            }
            Progress::Resumed { .. } => return Some("connection lost, goes on; ".to_owned()),
            Progress::NoRanges { lost, .. } => {
                return Some(format!("the registry cannot go on in the middle: {} come again; ", bytes_text(lost)));
            }
            Progress::Done { .. } => return (!self.layers.is_empty()).then(String::new),
        }
        None
    }

    fn end(&mut self, index: usize, phase: Phase) {
        self.ended += 1;
        if let Some(layer) = self.layers.get_mut(index) {
            layer.phase = phase;
        }
    }

    fn done(&self) -> u64 {
        self.layers.iter().map(|layer| layer.done).sum()
    }

    fn line(&self) -> String {
        let done = self.done();
        let mut line = format!(
            "{} of {} layers, {} of {}",
            self.ended,
            self.layers.len(),
            bytes_text(done),
            bytes_text(self.total)
        );
        line.push_str(&self.meter.text(self.total.saturating_sub(done)));
        line
    }

    /// What a terminal of so many rows and columns shows: layers under way first where not all fit.
    fn picture(&self, rows: usize, columns: usize) -> Vec<String> {
        let room = rows.saturating_sub(2).max(1);
        let is_shown = |layer: &&LayerLine| self.layers.len() <= room || layer.phase == Phase::Coming;
        let mut lines: Vec<String> =
            self.layers.iter().filter(is_shown).take(room).map(|layer| layer.line(columns)).collect();
        lines.push(self.line().chars().take(columns).collect());
        lines
    }
}

impl LayerLine {
    fn begin(&mut self, digest: &Digest, size: u64) {
        let name = digest.hex().chars().take(12).collect();
        *self = LayerLine { name, size, done: 0, phase: Phase::Coming, meter: Meter::default() };
    }

    fn line(&self, columns: usize) -> String {
        let bar = |full: u64| {
            let filled = usize::try_from(full * 20 / self.size.max(1)).unwrap_or(20).min(20);
            format!("[{}{}]", "=".repeat(filled), " ".repeat(20 - filled))
        };
        let name = if self.name.is_empty() { "-" } else { &self.name };
        let text = match self.phase {
            Phase::Waiting => format!("  {name:12}  waiting"),
            Phase::Present => format!("  {name:12}  is here already"),
            Phase::There => format!("  {name:12}  is there already"),
            Phase::Ready => format!("  {name:12}  {} {}, done", bar(self.size), bytes_text(self.size)),
            Phase::Coming => format!(
                "  {name:12}  {} {} of {}{}",
                bar(self.done),
                bytes_text(self.done),
                bytes_text(self.size),
                self.meter.text(self.size.saturating_sub(self.done))
            ),
        };
        text.chars().take(columns).collect()
    }
}

impl Observer for Shown {
    fn event(&self, progress: Progress) {
        let Ok(mut state) = self.state.lock() else { return };
        let now = Instant::now();
        let news = state.hear(progress, now);
        let is_last = matches!(progress, Progress::Done { .. });
        let every = if self.way == Way::Lines { LINE } else { REDRAW };
        if news.is_none() && (is_last || now.saturating_duration_since(state.said) < every) {
            return;
        }
        state.said = now;
        let text = match self.way {
            Way::Layers => redrawn(&mut state, is_last, news.filter(|news| !news.is_empty())),
            Way::Line if is_last => format!("{CLEAR}{}{}\n", self.name, state.line()),
            Way::Line => format!("{CLEAR}{}{}{}", self.name, news.unwrap_or_default(), state.line()),
            Way::Lines => format!("{}{}{}\n", self.name, news.unwrap_or_default(), state.line()),
        };
        // A closed stderr is no reason to end a pull.
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
    }
}

/// The picture in place of the last one; `news` stays above it.
fn redrawn(state: &mut State, is_last: bool, news: Option<String>) -> String {
    let (rows, columns) = crate::net::sys::window(std::io::stderr()).unwrap_or((ROWS, 80));
    let mut text = if state.drawn > 0 { format!("\x1b[{}A\r\x1b[J", state.drawn) } else { String::new() };
    if let Some(news) = news {
        text.push_str(news.trim_end_matches("; "));
        text.push('\n');
    }
    let lines = state.picture(rows, columns.saturating_sub(1));
    state.drawn = if is_last { 0 } else { lines.len() };
    for line in lines {
        text.push_str(&line);
        text.push('\n');
    }
    text
}

/// For people: at most four digits and a unit.
pub(crate) fn bytes_text(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..10_000_000 => format!("{} kB", bytes / 1000),
        10_000_000..10_000_000_000 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{} GB", bytes / 1_000_000_000),
    }
}

#[cfg(test)]
mod tests;
