//! Owns the borders around the process that Landlock (landlock(7)) draws: which files it may still open,
//! which ports it may still listen on, and that it signals and speaks to nobody else on the machine.

use std::collections::BTreeSet;
use std::path::PathBuf;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, NetPort, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, path_beneath_rules,
};

use super::syscalls::Programs;

/// The newest version whose rights are taken away here; of an older kernel, what it knows.
const NEWEST: ABI = ABI::V7;

/// What is left to the process. Directories stand for everything below them; a path that is not there is
/// passed over.
#[derive(Debug, Clone, Default)]
pub struct Borders {
    /// What may be read.
    pub read: BTreeSet<PathBuf>,
    /// What may be read, changed, made and removed.
    pub write: BTreeSet<PathBuf>,
    /// Ports that may be listened on; 0 for one that the kernel chooses.
    pub ports: BTreeSet<u16>,
}

/// What the kernel has made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drawn {
    /// Everything that was asked, by a kernel with this version of Landlock.
    All(i32),
    /// Less, by an older kernel with this version.
    Part(i32),
    /// The kernel has no Landlock, or has it switched off.
    Nothing,
}

/// Draws them around the calling thread and all that it starts later, threads and programs.
///
/// Where programs are started they may read and execute everything that this user may: what they need is
/// not known here. What they may write stays within `borders`.
pub fn confine(borders: &Borders, programs: Programs) -> Result<Drawn, RulesetError> {
    let look = AccessFs::ReadFile | AccessFs::ReadDir;
    let devices = AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev;
    let links = AccessFs::MakeSock | AccessFs::MakeFifo | AccessFs::MakeSym;
    let all: BitFlags<AccessFs> = AccessFs::from_all(NEWEST);
    let ruleset = Ruleset::default().handle_access(all)?;
    let drawn = match programs {
        Programs::Started => ruleset
            .scope(Scope::Signal)?
            .create()?
            .add_rules(path_beneath_rules(["/"], look | AccessFs::Execute))?
            .add_rules(path_beneath_rules(&borders.write, all & !devices))?,
        Programs::None => ruleset
            .handle_access(AccessNet::BindTcp)?
            .scope(Scope::Signal | Scope::AbstractUnixSocket)?
            .create()?
            .add_rules(path_beneath_rules(&borders.read, look))?
            .add_rules(path_beneath_rules(
                &borders.write,
                all & !devices & !links & !AccessFs::Execute,
            ))?
            .add_rules(
                borders
                    .ports
                    .iter()
                    .map(|port| Ok::<_, RulesetError>(NetPort::new(*port, AccessNet::BindTcp))),
            )?,
    };
    let status = drawn.restrict_self()?;
    let version = match status.landlock {
        LandlockStatus::Available { effective_abi, .. } => effective_abi as i32,
        _ => 0,
    };
    Ok(match status.ruleset {
        RulesetStatus::FullyEnforced => Drawn::All(version),
        RulesetStatus::PartiallyEnforced => Drawn::Part(version),
        RulesetStatus::NotEnforced => Drawn::Nothing,
    })
}
