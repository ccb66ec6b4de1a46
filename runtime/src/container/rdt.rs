//! Intel RDT in the words of the specification (`linux.intelRdt`): a share of the caches and of the memory's bandwidth, by the kernel's resctrl
//! file system.

/// What a container asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rdt {
    /// Group that is shared and stays; absent = one of the container's own, which goes with it.
    pub clos: Option<String>,
    /// Lines of the `schemata` file.
    pub schemata: Vec<String>,
    /// A monitoring group of its own.
    pub monitored: bool,
}
