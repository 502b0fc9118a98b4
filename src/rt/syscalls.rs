//! Owns the filter of system calls (seccomp(2)): what a proxy never needs is refused with EPERM.
//!
//! A list of what is refused, not of what is allowed: a library that starts to use a new call must not
//! fail in production for it. What is on it widens an attacker's way out of the process: other processes'
//! memory, mounts, namespaces, kernel modules, kernel interfaces with a long history of faults.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, apply_filter_all_threads,
};

/// Whether the process starts other programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Programs {
    /// It does; they inherit the filter.
    Started,
    /// It does not, and no memory that was written to becomes code. A file can still be mapped as code, as the C
    /// library does with its modules: also one that was written before.
    None,
}

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// For this processor it is not known what to refuse.
    #[error("there is no list of system calls for this processor")]
    Processor,
    /// The kernel has none, or what started this process forbids it.
    #[error("the kernel does not take it ({0})")]
    Kernel(#[from] seccompiler::Error),
}

impl From<BackendError> for FilterError {
    fn from(error: BackendError) -> Self {
        Self::Kernel(error.into())
    }
}

/// Refuses them from now on, in every thread and in every program that is started. Sets `no_new_privs`.
pub fn refuse(programs: Programs) -> Result<(), FilterError> {
    for filter in filters(rules(programs)?)? {
        apply_filter_all_threads(&filter)?;
    }
    Ok(())
}

/// What is refused with EPERM, and before it clone3(2): its flags stand in memory, where a filter cannot look. The
/// C library falls back to clone(2) after ENOSYS, and only then; systemd's RestrictNamespaces= does the same.
fn filters(refused: Rules) -> Result<[BpfProgram; 2], FilterError> {
    let target: TargetArch = std::env::consts::ARCH
        .try_into()
        .map_err(|_| FilterError::Processor)?;
    let clone3 = Rules::from([(libc::SYS_clone3, Vec::new())]);
    Ok([
        compile(clone3, libc::ENOSYS, target)?,
        compile(refused, libc::EPERM, target)?,
    ])
}

type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

fn compile(rules: Rules, errno: i32, target: TargetArch) -> Result<BpfProgram, FilterError> {
    let refuse = SeccompAction::Errno(errno.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, target)?;
    Ok(filter.try_into()?)
}

fn rules(programs: Programs) -> Result<Rules, BackendError> {
    // No rules for a call: it is refused whatever its arguments are.
    let mut rules: Rules = NEVER.iter().map(|call| (*call, Vec::new())).collect();
    rules.insert(libc::SYS_socket, vec![other_families()?]);
    let new_namespace = NAMESPACES.iter().map(|flag| has_bits(0, *flag));
    rules.insert(libc::SYS_clone, new_namespace.collect::<Result<_, _>>()?);
    if programs == Programs::None {
        for call in [libc::SYS_execve, libc::SYS_execveat] {
            rules.insert(call, Vec::new());
        }
        let writable_code = has_bits(2, libc::PROT_WRITE | libc::PROT_EXEC)?;
        rules.insert(libc::SYS_mmap, vec![writable_code]);
        for call in [libc::SYS_mprotect, libc::SYS_pkey_mprotect] {
            rules.insert(call, vec![has_bits(2, libc::PROT_EXEC)?]);
        }
        rules.insert(libc::SYS_shmat, vec![has_bits(2, libc::SHM_EXEC)?]);
    }
    #[cfg(target_arch = "x86_64")]
    add_x32(&mut rules, programs);
    Ok(rules)
}

/// The same calls under their numbers in the x32 ABI, which shares the architecture that a filter is asked
/// about; those with a number of their own there are from `arch/x86/entry/syscalls/syscall_64.tbl`.
#[cfg(target_arch = "x86_64")]
fn add_x32(rules: &mut Rules, programs: Programs) {
    const X32: c_long = 0x4000_0000;
    const PTRACE_KEXEC_VM: [c_long; 4] = [521, 528, 539, 540];
    const IO: [c_long; 2] = [543, 544];
    const EXEC: [c_long; 2] = [520, 545];
    let mut added: Rules = rules.iter().map(|(c, r)| (c | X32, r.clone())).collect();
    let mut own: Vec<c_long> = [PTRACE_KEXEC_VM.as_slice(), &IO].concat();
    if programs == Programs::None {
        own.extend(EXEC);
    }
    added.extend(own.into_iter().map(|call| (call | X32, Vec::new())));
    rules.append(&mut added);
}

/// Sockets of other kinds than the network, its neighbours on this machine, and the C library's question
/// which addresses the machine has.
fn other_families() -> Result<SeccompRule, BackendError> {
    let families = [
        libc::AF_UNIX,
        libc::AF_INET,
        libc::AF_INET6,
        libc::AF_NETLINK,
    ];
    let is_not = |family: i32| {
        let family = u64::from(family.unsigned_abs());
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, family)
    };
    SeccompRule::new(families.into_iter().map(is_not).collect::<Result<_, _>>()?)
}

fn has_bits(argument: u8, bits: i32) -> Result<SeccompRule, BackendError> {
    let bits = u64::from(bits.cast_unsigned());
    let set = SeccompCmpOp::MaskedEq(bits);
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, set, bits)?;
    SeccompRule::new(vec![condition])
}

const NAMESPACES: &[i32] = &[
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWCGROUP,
];

/// Whatever the arguments.
const NEVER: &[c_long] = &[
    // Other processes: their memory, their descriptors.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // The kernel itself.
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_syslog,
    libc::SYS_reboot,
    libc::SYS_lookup_dcookie,
    // A second way to most system calls, which no filter sees.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // File systems and their borders.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_fanotify_init,
    // Namespaces, keyrings, personalities.
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_personality,
    // The machine's clock, name and accounting.
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_acct,
    libc::SYS_vhangup,
    // Asynchronous I/O of the kernel's own, and shared memory by number.
    libc::SYS_io_setup,
    libc::SYS_io_submit,
    libc::SYS_remap_file_pages,
    libc::SYS_nfsservctl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_uselib,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ustat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_sysfs,
    #[cfg(target_arch = "x86_64")]
    libc::SYS__sysctl,
];

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Far from the kernel's 4096: a filter that is longer is refused whole.
    #[test]
    fn the_filter_has_room_to_grow() {
        for programs in [Programs::Started, Programs::None] {
            let [_, program] = filters(rules(programs).unwrap()).unwrap();
            assert!(
                (100..1500).contains(&program.len()),
                "{} steps",
                program.len()
            );
        }
    }

    /// A thread of its own: the filter stays with it. (`refuse` would take all threads of the tests.)
    fn filtered<T: Send + 'static>(
        programs: Programs,
        act: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        below(rules(programs).unwrap(), act)
    }

    fn below<T: Send + 'static>(rules: Rules, act: impl FnOnce() -> T + Send + 'static) -> T {
        let thread = std::thread::spawn(move || {
            for filter in filters(rules).unwrap() {
                seccompiler::apply_filter(&filter).unwrap();
            }
            act()
        });
        thread.join().unwrap()
    }

    /// What the kernel says to these calls (number and arguments) in a program of its own below the filters: 0
    /// for those it does. Rust has no safe way to make them; Perl is part of every Debian.
    fn said(rules: Rules, calls: &[Vec<i64>]) -> Vec<i32> {
        const ASK: &str = r#"for (@ARGV) { my @call = map { 0 + $_ } split /,/;
            $! = 0; my $done = syscall(shift @call, @call); printf "%d\n", $done == -1 ? $! + 0 : 0 }"#;
        let words: Vec<String> = calls
            .iter()
            .map(|call| {
                call.iter()
                    .map(i64::to_string)
                    .collect::<Vec<_>>()
                    .join(",")
            })
            .collect();
        let asked = below(rules, move || {
            let mut perl = Command::new("perl");
            perl.args(["-e", ASK]).args(words).output().unwrap()
        });
        assert!(asked.status.success(), "{asked:?}");
        let text = String::from_utf8(asked.stdout).unwrap();
        text.lines().map(|line| line.parse().unwrap()).collect()
    }

    /// Each with what is said where programs are started, and where none are. Without the filter none of them
    /// would do harm: the kernel refuses their arguments, in another word.
    #[test]
    fn the_kernel_refuses_namespaces_and_memory_that_becomes_code() {
        let number = |bits: i32| i64::from(bits);
        let (no, fits) = (libc::EPERM, 0);
        let memory = number(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        let read_write = number(libc::PROT_READ | libc::PROT_WRITE);
        let read_code = number(libc::PROT_READ | libc::PROT_EXEC);
        let map = |protection: i64| vec![libc::SYS_mmap, 0, 4096, protection, memory, -1, 0];
        let protect = |call: i64, protection: i64| vec![call, 0, 4096, protection, 0];
        // A thread without CLONE_SIGHAND: EINVAL of clone(2).
        let clone = |flags: i32| {
            vec![
                libc::SYS_clone,
                number(libc::CLONE_THREAD | flags),
                0,
                0,
                0,
                0,
            ]
        };
        let code = number(libc::PROT_EXEC);
        let mut table = vec![
            (map(read_write), fits, fits),
            (map(read_code), fits, fits),
            (map(read_write | code), fits, no),
            (
                protect(libc::SYS_mprotect, read_write),
                libc::ENOMEM,
                libc::ENOMEM,
            ),
            (protect(libc::SYS_mprotect, read_code), libc::ENOMEM, no),
            (vec![libc::SYS_shmat, -1, 0, 0], libc::EINVAL, libc::EINVAL),
            (
                vec![libc::SYS_shmat, -1, 0, number(libc::SHM_EXEC)],
                libc::EINVAL,
                no,
            ),
            (vec![libc::SYS_clone3, 0, 0], libc::ENOSYS, libc::ENOSYS),
            (clone(0), libc::EINVAL, libc::EINVAL),
            (vec![libc::SYS_unshare, 1 << 40], no, no),
            (vec![libc::SYS_io_uring_setup, 0, 0], no, no),
            (vec![libc::SYS_socket, number(libc::AF_ALG), 77, 0], no, no),
        ];
        table.extend(NAMESPACES.iter().map(|flag| (clone(*flag), no, no)));
        // Not every processor can protect by key; where it cannot, it says so before it looks at the page.
        let by_key = said(Rules::new(), &[protect(libc::SYS_pkey_mprotect, code)])[0];
        table.push((protect(libc::SYS_pkey_mprotect, code), by_key, no));
        #[cfg(target_arch = "x86_64")]
        {
            const X32: i64 = 0x4000_0000;
            let of = |call: i64| vec![call | X32, 0, 0, 0, 0];
            // A kernel without x32 says ENOSYS to what comes through.
            let through = said(Rules::new(), &[of(libc::SYS_getpid)])[0];
            table.extend([521, 528, 539, 540, 543, 544].map(|call| (of(call), no, no)));
            table.extend([libc::SYS_bpf, libc::SYS_unshare].map(|call| (of(call), no, no)));
            table.push((of(libc::SYS_getpid), through, through));
            let mut written = map(read_write | code);
            written[0] |= X32;
            table.push((written, through, no));
        }
        let calls: Vec<Vec<i64>> = table.iter().map(|(call, ..)| call.clone()).collect();
        let started = said(rules(Programs::Started).unwrap(), &calls);
        // But for the one call that starts the program that asks.
        let mut none = rules(Programs::None).unwrap();
        assert!(none.remove(&libc::SYS_execve).is_some());
        let none = said(none, &calls);
        let answers = started.into_iter().zip(none);
        let wrong: Vec<_> = table
            .iter()
            .zip(answers)
            .filter(|((_, started, none), said)| *said != (*started, *none))
            .collect();
        assert!(wrong.is_empty(), "{wrong:?}");
    }

    fn errno<T>(outcome: std::io::Result<T>) -> Option<i32> {
        outcome.err().and_then(|error| error.raw_os_error())
    }

    #[test]
    fn programs_start_only_where_they_are_meant_to() {
        let run = || errno(Command::new("/bin/true").status());
        assert_eq!(filtered(Programs::None, run), Some(libc::EPERM));
        assert_eq!(filtered(Programs::Started, run), None);
    }

    #[test]
    fn what_a_proxy_never_needs_is_refused_and_what_it_needs_is_not() {
        use rustix::net::{AddressFamily, SocketType, socket};
        filtered(Programs::None, || {
            let refused = Some(rustix::io::Errno::PERM);
            let open = |family| socket(family, SocketType::DGRAM, None).err();
            let crypto = u16::try_from(libc::AF_ALG).unwrap();
            assert_eq!(open(AddressFamily::from_raw(crypto)), refused);
            assert_eq!(open(AddressFamily::INET), None);
            assert_eq!(open(AddressFamily::UNIX), None);
            assert_eq!(rustix::process::chroot("/").err(), refused);
            // A thread needs clone(2), a file and memory are the daily bread.
            std::thread::spawn(|| vec![0_u8; 1 << 22]).join().unwrap();
            assert!(std::fs::read("/proc/self/status").is_ok());
        });
    }
}
