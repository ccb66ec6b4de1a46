//! How a run ends without a value, and what it may cost.

/// Steps that all rules of one write may take together: about a tenth of a second.
pub const COST_MAX: usize = 2_000_000;
/// Steps that one run of a rule may take.
pub const RULE_COST_MAX: usize = 1_000_000;
/// Steps of a pattern's automaton that cost as much as one of a rule.
const PATTERN_STEPS: usize = 8;

/// Why a run gave no value.
#[derive(Debug, PartialEq)]
pub(crate) enum Stop {
    /// In cel-go's words.
    Error(String),
    /// The budget is spent.
    Cost,
}

/// Steps that are left.
pub(crate) struct Budget(usize);

impl Budget {
    pub(crate) fn new() -> Budget {
        Budget(COST_MAX)
    }
    pub(crate) fn empty() -> Budget {
        Budget(0)
    }
    pub(crate) fn is_spent(&self) -> bool {
        self.0 == 0
    }
    pub(super) fn spend(&mut self, steps: usize) -> Result<(), Stop> {
        match self.0.checked_sub(steps) {
            Some(left) => {
                self.0 = left;
                Ok(())
            }
            None => {
                self.0 = 0;
                Err(Stop::Cost)
            }
        }
    }
    pub(super) fn pattern_steps(&self) -> usize {
        self.0.saturating_mul(PATTERN_STEPS)
    }
    pub(super) fn spend_pattern(&mut self, steps: usize) -> Result<(), Stop> {
        self.spend(steps / PATTERN_STEPS)
    }
    /// Runs something that may take `most` of what is left.
    pub(super) fn within<T>(&mut self, most: usize, run: impl FnOnce(&mut Budget) -> T) -> T {
        let before = self.0.min(most);
        let mut part = Budget(before);
        let done = run(&mut part);
        self.0 = self.0.saturating_sub(before - part.0);
        done
    }
}

pub(super) fn no_overload() -> Stop {
    Stop::Error("no such overload".into())
}
