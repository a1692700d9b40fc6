//! Groups as text.

use std::fmt;

use super::{Group, Groups, Kind, Member, Refused, Role};

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Kind::Channels => "channels",
            Kind::Features => "features",
            Kind::Heads => "heads",
            Kind::HiddenUnits => "hidden units",
        })
    }
}

impl fmt::Display for Member {
    /// `weight[0]`, `weight[0]x32` where 32 slices go with a unit.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.value, self.axis)?;
        if self.n_per_unit == 1 { Ok(()) } else { write!(f, "x{}", self.n_per_unit) }
    }
}

impl fmt::Display for Group {
    /// What the units are, the weights that make them and those that sum over them, what else they reach.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.n_units, self.kind, list(self.with_role(Role::Made)))?;
        if self.with_role(Role::Summed).next().is_some() {
            write!(f, " -> {}", list(self.with_role(Role::Summed)))?;
        }
        let count = |role| self.with_role(role).count();
        write!(f, "; in {} other constants, {} inner values", count(Role::Constant), count(Role::Inner))?;
        if !self.crosses.is_empty() {
            write!(f, "; crosses {}", self.crosses.join(", "))?;
        }
        Ok(())
    }
}

fn list<'a>(members: impl Iterator<Item = &'a Member>) -> String {
    members.map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}[{}]: {}", self.n_units, self.weight, self.axis, self.reason)
    }
}

impl fmt::Display for Groups {
    /// A line a group, a line a refusal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.groups.iter().try_for_each(|group| writeln!(f, "{group}"))?;
        self.refused.iter().try_for_each(|refused| writeln!(f, "refused {refused}"))
    }
}
