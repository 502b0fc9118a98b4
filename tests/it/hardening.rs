//! What the process gives up before it serves: that it is gone, that everything else still works, and that
//! whoever asks for it afterwards is told what to do.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Stdio;

use seccompiler::{SeccompAction, SeccompFilter};
use serde_json::Value;
use tokio::process::Command;

use super::support::clients;
use super::support::echo::{self, PLACEHOLDER, REAL_KEY};
use super::support::operator::{Mount, PATIENCE, finish, put, until};
use super::support::proxy::{Proxy, proxy, tollgate};
use super::support::visitor::get;

/// Of every thread of a process: the fields of `/proc/PID/status`.
fn threads(pid: u32) -> Vec<BTreeMap<String, String>> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let status = |task: fs::DirEntry| fs::read_to_string(task.path().join("status")).unwrap();
    let fields = |text: String| {
        let lines = text.lines().filter_map(|line| line.split_once(':'));
        lines
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect()
    };
    tasks.map(|task| fields(status(task.unwrap()))).collect()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The kernel that the tests run on has it all.
async fn full(proxy: &Proxy) -> bool {
    let said = proxy.admin("GET", "/v1/hardening").await.json();
    let protections = said["protections"].as_array().unwrap().clone();
    let missing = protections
        .iter()
        .find(|p| p["name"] != "user" && p["force"] == "missing");
    if let Some(missing) = missing {
        clients::skip("hardening", &format!("not on this kernel: {missing}"));
    }
    missing.is_none()
}

#[tokio::test]
async fn every_thread_of_a_serving_process_has_given_up_what_it_does_not_need() {
    let echo = echo::echo().await;
    let proxy = echo::in_front_of(&echo).start().await;
    assert_eq!(get(&proxy.bare_door(), PLACEHOLDER, "/").await.0, 200);
    if !full(&proxy).await {
        return;
    }
    let threads = threads(proxy.pid());
    assert!(threads.len() > 2, "{}", threads.len());
    for thread in &threads {
        for set in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
            assert_eq!(thread[set], "0000000000000000", "{set} of {thread:?}");
        }
        if is_root() {
            assert_eq!(thread["CapBnd"], "0000000000000000", "{thread:?}");
        }
        assert_eq!(thread["NoNewPrivs"], "1");
        assert_eq!(thread["Seccomp"], "2");
    }
    let user = if is_root() {
        "ROOT".to_owned()
    } else {
        rustix::process::geteuid().as_raw().to_string()
    };
    let said = format!(
        "dumps=off privileges=fixed capabilities=none files=landlock syscalls=filtered user={user}"
    );
    assert!(proxy.output().contains(&said), "{}", proxy.output());
    assert_eq!(proxy.output().contains("it runs as root"), is_root());

    let answer = proxy.admin("GET", "/v1/hardening").await.json();
    for (at, name) in ["dumps", "privileges", "capabilities", "files", "syscalls"]
        .iter()
        .enumerate()
    {
        let protection = &answer["protections"][at];
        // An older kernel draws fewer borders around files.
        let whole =
            protection["force"] == "full" || (*name == "files" && protection["force"] == "part");
        assert!(protection["name"] == *name && whole, "{protection}");
        let series = format!("tollgate_protection{{protection=\"{name}\"}}");
        assert_eq!(proxy.metric(&series).await, Some(1.0));
    }
    let running = proxy.cli(&["check", "--running", "-o", "json"]).await;
    assert_eq!(running.code, Some(0), "{running:?}");
    let lines = running.json();
    assert_eq!(lines[3]["part"], "hardening");
    assert_eq!(lines[3]["state"], "ok");
    let text = lines[3]["message"].as_str().unwrap().to_owned();
    assert!(text.starts_with("files: Landlock, version "), "{text}");
    // What a start would have is the same as what this one has.
    let check = proxy.cli(&["check", "-o", "json"]).await.json();
    let offline = check.as_array().unwrap().iter();
    let offline: Vec<&Value> = offline.filter(|l| l["part"] == "hardening").collect();
    assert_eq!(
        offline,
        lines.as_array().unwrap().iter().collect::<Vec<_>>()
    );
}

/// `ptrace`, `/proc/PID/mem` and `/proc/PID/environ` ask the same question of the kernel.
#[tokio::test]
async fn no_other_process_of_its_user_looks_into_its_memory() {
    let echo = echo::echo().await;
    let proxy = echo::in_front_of(&echo).start().await;
    // Root's own right to look everywhere would prove nothing.
    let plain = |program: &str, args: &[&str]| {
        let mut command = Command::new("setpriv");
        if is_root() {
            command.args(["--bounding-set=-all", "--inh-caps=-all"]);
        }
        command.arg(program).args(args).kill_on_drop(true);
        command
    };
    let other = plain("sleep", &["60"]).spawn().unwrap();
    let look = async |pid: u32| {
        let file = format!("if=/proc/{pid}/environ");
        finish(plain("dd", &["bs=1", "count=1", &file])).await
    };
    let sleeps =
        async || fs::read(format!("/proc/{}/comm", other.id().unwrap())).unwrap() == b"sleep\n";
    until("the other one runs", PATIENCE, sleeps).await;
    let seen = look(other.id().unwrap()).await;
    assert_eq!(seen.code, Some(0), "{seen:?}");
    let refused = look(proxy.pid()).await;
    assert_ne!(refused.code, Some(0), "{refused:?}");
    assert!(refused.stderr.contains("Permission denied"), "{refused:?}");
}

const CREDENTIAL: &str = "hosts: [echo.example.com]\nplacements: [{bearer: {}}]\nplaceholder: {value: echo-placeholder-0001}\n";

fn credential(name: &str, source: &str) -> String {
    let spec = CREDENTIAL.replace("0001", name).replace('\n', "\n  ");
    format!(
        "---\napiVersion: tollgate.dev/v1alpha1\nkind: EgressCredential\nmetadata: {{name: {name}}}\nspec:\n  source: {source}\n  {spec}\n"
    )
}

fn policy(credentials: &str) -> String {
    format!(
        "---\napiVersion: tollgate.dev/v1alpha1\nkind: EgressPolicy\nmetadata: {{name: p}}\nspec:\n  egress: [{{hosts: [echo.example.com], credentials: [{credentials}]}}]\n"
    )
}

/// What the origin got for one request with this credential's placeholder.
async fn used(echo: &echo::Echo, proxy: &Proxy, name: &str) -> Option<String> {
    let path = format!("/{name}/{}", echo.origin.requests().len());
    let placeholder = format!("echo-placeholder-{name}");
    get(&proxy.bare_door(), &placeholder, &path).await;
    let requests = echo.origin.requests();
    let asked = requests.iter().find(|request| request.path() == path)?;
    asked.bearer().map(str::to_owned)
}

/// Mounted, linked, moved: all that files go through while it serves.
#[tokio::test]
async fn its_files_may_be_swapped_moved_and_rotated_while_it_serves() {
    let echo = echo::echo().await;
    let described = proxy()
        .origin(&echo.origin)
        .documents_at("policies")
        .setting("audit: {exchanges: all, rotate: {size: 2KiB, keep: 3}}");
    let at = |name: &str| described.file(name);
    let mut mount = Mount::new(at("mount"), "key", "key-of-mount-0001");
    let elsewhere = tempfile::tempdir().unwrap();
    let release = |name: &str| elsewhere.path().join(name);
    for number in [1, 2] {
        fs::create_dir_all(release(&format!("releases/{number}"))).unwrap();
        put(
            &release(&format!("releases/{number}/key")),
            format!("key-of-release-{number}"),
        );
    }
    symlink("releases/1/key", release("current")).unwrap();
    let sources = [("mounted", mount.file()), ("linked", release("current"))];
    let mut documents = policy("mounted, linked");
    for (name, path) in &sources {
        documents += &credential(name, &format!("{{file: {{path: {}}}}}", path.display()));
    }
    fs::create_dir(at("policies")).unwrap();
    put(&at("policies/all.yaml"), &documents);
    let proxy = described.start().await;
    assert!(
        proxy.output().contains("files=landlock "),
        "{}",
        proxy.output()
    );
    let uses = async |name: &str, key: &str| {
        let arrives = async || used(&echo, &proxy, name).await.as_deref() == Some(key);
        until(key, PATIENCE, arrives).await;
    };
    uses("mounted", "key-of-mount-0001").await;
    uses("linked", "key-of-release-1").await;

    mount.swap("key-of-mount-0002");
    uses("mounted", "key-of-mount-0002").await;
    symlink("releases/2/key", release("turned")).unwrap();
    fs::rename(release("turned"), release("current")).unwrap();
    uses("linked", "key-of-release-2").await;

    // A directory of documents that is replaced whole.
    fs::create_dir(proxy.file("policies.new")).unwrap();
    put(
        &proxy.file("policies.new/all.yaml"),
        documents.replace("credentials: [mounted, linked]", "credentials: [mounted]"),
    );
    fs::rename(proxy.file("policies"), proxy.file("policies.old")).unwrap();
    fs::rename(proxy.file("policies.new"), proxy.file("policies")).unwrap();
    let revoked = async || used(&echo, &proxy, "linked").await.is_none();
    until("the new documents are in force", PATIENCE, revoked).await;

    fs::rename(proxy.file("access.log"), proxy.file("access.log.1")).unwrap();
    proxy.signal("-HUP").await;
    // The signal is heard in its own time.
    let begun_anew = async || {
        used(&echo, &proxy, "mounted").await;
        fs::read_to_string(proxy.file("access.log")).is_ok_and(|log| !log.is_empty())
    };
    until("the access log is begun anew", PATIENCE, begun_anew).await;

    let rotated = async || {
        used(&echo, &proxy, "mounted").await;
        fs::read_dir(proxy.file("state/audit")).unwrap().count() > 4
    };
    until("the audit log rotates", PATIENCE, rotated).await;
    let verified = proxy.cli(&["audit", "verify"]).await;
    assert_eq!(verified.code, Some(0), "{verified:?}");
}

#[tokio::test]
async fn a_link_that_is_turned_out_of_the_borders_leads_nowhere() {
    for (mode, shut) in [("BestEffort", true), ("Off", false)] {
        let echo = echo::echo().await;
        let elsewhere = tempfile::tempdir().unwrap();
        put(&elsewhere.path().join("key"), "key-from-elsewhere");
        let described = echo::in_front_of(&echo).setting(&format!("hardening: {{mode: {mode}}}"));
        let proxy = described.start().await;
        if shut && !full(&proxy).await {
            return;
        }
        symlink(elsewhere.path().join("key"), proxy.file("turned")).unwrap();
        fs::rename(proxy.file("turned"), proxy.file("echo.secret")).unwrap();
        let seen = async || {
            let status = proxy.credential("echo").await;
            status["state"] == "failing" || status["version"] == 2
        };
        until("the link is looked at", PATIENCE, seen).await;
        get(&proxy.bare_door(), PLACEHOLDER, "/after").await;
        let key = echo.origin.only("/after").bearer().unwrap().to_owned();
        match shut {
            true => {
                assert_eq!(key, REAL_KEY);
                let status = proxy.credential("echo").await.to_string();
                assert!(status.contains("may not be read"), "{status}");
                assert!(status.contains("spec.hardening.read"), "{status}");
            }
            false => assert_eq!(key, "key-from-elsewhere"),
        }
    }
}

#[tokio::test]
async fn documents_that_ask_for_what_was_given_up_are_refused_with_the_remedy() {
    let echo = echo::echo().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let outside = |name: &str| elsewhere.path().join(name).display().to_string();
    put(Path::new(&outside("key")), "key-from-elsewhere");
    let mut proxy = echo::in_front_of(&echo).start().await;
    if !full(&proxy).await {
        return;
    }
    let before = fs::read_to_string(proxy.file("documents.yaml")).unwrap();
    let file = format!("{{file: {{path: {}}}}}", outside("key"));
    let grant = "clientId: x, tokenEndpoint: https://echo.example.com/token";
    let table = [
        (
            file.clone(),
            "may read since its start",
            "spec.hardening.read",
        ),
        (
            "{exec: {command: [sh, -c, 'echo key-of-helper'], output: text}}".to_owned(),
            "names the helper `sh`, but this process has given up starting programs",
            "restart it",
        ),
        (
            format!("{{oauth: {{{grant}, caFile: {}}}}}", outside("ca.pem")),
            "may read since its start",
            "spec.hardening.read",
        ),
        (
            format!(
                "{{oauth: {{{grant}, store: {{file: {{path: {}}}}}}}}}",
                outside("grant.json")
            ),
            "may write since its start",
            "spec.hardening.write",
        ),
        (
            format!("{{oauth: {{{grant}, store: {{kubernetesSecret: {{name: s}}}}}}}}"),
            "given up reading the pod's ServiceAccount",
            "restart it",
        ),
    ];
    for (source, said, remedy) in &table {
        put(
            &proxy.file("documents.yaml"),
            before.clone() + &credential("late", source),
        );
        let answer = proxy.admin("POST", "/v1/reload").await;
        assert_eq!(answer.status, 422, "{source}: {}", answer.text);
        for words in [*said, *remedy] {
            assert!(answer.text.contains(words), "{source}: {}", answer.text);
        }
        let ready = proxy.readyz().await;
        assert!(
            ready.text.contains(said) && ready.status == 200,
            "{}",
            ready.text
        );
        assert_eq!(get(&proxy.bare_door(), PLACEHOLDER, "/").await.0, 200);
    }
    // Documents that lie elsewhere themselves.
    let config = fs::read_to_string(&proxy.config).unwrap();
    put(&proxy.file("documents.yaml"), &before);
    put(Path::new(&outside("late.yaml")), "");
    let moved = config.replacen("documents.yaml", &outside("late.yaml"), 1);
    put(&proxy.config, &moved);
    let answer = proxy.admin("POST", "/v1/reload").await;
    assert_eq!(answer.status, 422, "{}", answer.text);
    assert!(answer.text.contains("spec.documents names") && answer.text.contains("restart it"));
    put(&proxy.config, &config);

    let late = before.replace("credentials: [echo]", "credentials: [echo, late]");
    assert_ne!(late, before);
    put(
        &proxy.file("documents.yaml"),
        late + &credential("late", &file),
    );
    proxy.kill().await;
    proxy.restart().await;
    assert_eq!(
        used(&echo, &proxy, "late").await.as_deref(),
        Some("key-from-elsewhere")
    );
}

/// The helper's own shell tries what it may and what it may not.
#[tokio::test]
async fn a_helper_program_runs_within_what_is_left() {
    let echo = echo::echo().await;
    let elsewhere = tempfile::tempdir_in("/var").or_else(|_| tempfile::tempdir_in(clients::home()));
    let elsewhere = elsewhere.unwrap();
    let outside = elsewhere.path().join("made").display().to_string();
    put(&elsewhere.path().join("readable"), "read");
    let script = format!(
        "touch $HOME/cache && at=home; cat {0}/readable >/dev/null && at=$at-reads; \
         touch {outside} 2>/dev/null || at=$at-border; unshare --user true 2>/dev/null || at=$at-namespace; \
         echo key-$at",
        elsewhere.path().display()
    );
    let source = format!("{{exec: {{command: [sh, -c, \"{script}\"], output: text}}}}");
    let described = proxy().origin(&echo.origin).documents_at("all.yaml");
    put(
        &described.file("all.yaml"),
        policy("helper") + &credential("helper", &source),
    );
    let proxy = described.start().await;
    if !full(&proxy).await {
        return;
    }
    let said = "files=landlock-writes syscalls=filtered";
    assert!(proxy.output().contains(said), "{}", proxy.output());
    let key = used(&echo, &proxy, "helper").await;
    assert_eq!(key.as_deref(), Some("key-home-reads-border-namespace"));
    assert!(proxy.file("cache").exists() && !Path::new(&outside).exists());
}

/// Programs that this thread starts from now on find a kernel without Landlock.
fn on_a_kernel_without_landlock() {
    let calls = [(libc::SYS_landlock_create_ruleset, Vec::new())];
    let enosys = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    let target = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(calls.into(), SeccompAction::Allow, enosys, target).unwrap();
    let filter: seccompiler::BpfProgram = filter.try_into().unwrap();
    seccompiler::apply_filter(&filter).unwrap();
}

#[tokio::test]
async fn what_the_kernel_lacks_is_reported_and_where_it_is_required_refused() {
    on_a_kernel_without_landlock();
    let echo = echo::echo().await;
    let with =
        |mode: &str| echo::in_front_of(&echo).setting(&format!("hardening: {{mode: {mode}}}"));
    let proxy = with("BestEffort").start().await;
    let output = proxy.output();
    assert!(output.contains("files=OPEN syscalls=filtered"), "{output}");
    assert!(
        output.contains("not in force: the kernel has no Landlock"),
        "{output}"
    );
    assert_eq!(get(&proxy.bare_door(), PLACEHOLDER, "/").await.0, 200);
    assert_eq!(
        proxy
            .metric("tollgate_protection{protection=\"files\"}")
            .await,
        Some(0.0)
    );
    let check = proxy.cli(&["check"]).await;
    assert!(
        check.stdout.contains("‼ files: the kernel has no Landlock"),
        "{check:?}"
    );

    let described = with("Require");
    let required = finish(described.serve(&described.write())).await;
    assert_eq!(required.code, Some(78), "{required:?}");
    assert!(
        required.stderr.contains("Require")
            && required
                .stderr
                .contains("files: the kernel has no Landlock")
    );
    let mut check = tollgate(&described.file(""), &[].into());
    check.args(["check", "--config"]).arg(described.write());
    let check = finish(check).await;
    assert_eq!(check.code, Some(1), "{check:?}");
    assert!(
        check.stdout.contains("× files: the kernel has no Landlock"),
        "{check:?}"
    );
}

#[tokio::test]
async fn hardening_that_is_required_and_there_lets_it_start_and_off_leaves_all_but_dumps() {
    let echo = echo::echo().await;
    let with =
        |mode: &str| echo::in_front_of(&echo).setting(&format!("hardening: {{mode: {mode}}}"));
    let off = with("Off").start().await;
    let said = "dumps=off privileges=fixed capabilities=OFF files=OFF syscalls=OFF";
    assert!(off.output().contains(said), "{}", off.output());
    assert_eq!(
        threads(off.pid())[0]["Seccomp"],
        threads(std::process::id())[0]["Seccomp"]
    );
    if full(&with("BestEffort").start().await).await {
        let required = with("Require").start().await;
        assert_eq!(get(&required.bare_door(), PLACEHOLDER, "/").await.0, 200);
    }
}

/// A port below 1024 takes one capability, and that one alone is kept.
#[tokio::test]
async fn for_a_low_port_one_capability_is_kept() {
    const BIND: &str = "0000000000000400";
    if !is_root() {
        return clients::skip("root", "a low port needs it");
    }
    let free = (600..1024)
        .rev()
        .find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok());
    let echo = echo::echo().await;
    let described = echo::in_front_of(&echo);
    let config = described.write();
    let text = fs::read_to_string(&config).unwrap();
    let low = format!("listen: 127.0.0.1:{}", free.unwrap());
    fs::write(&config, text.replacen("listen: 127.0.0.1:0", &low, 1)).unwrap();
    let mut command = described.serve(&config);
    let mut child = command
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let door = ("127.0.0.1", free.unwrap());
    let listens = async || tokio::net::TcpStream::connect(door).await.is_ok();
    until("it listens", PATIENCE, listens).await;
    for thread in threads(child.id().unwrap()) {
        assert_eq!(
            (thread["CapEff"].as_str(), thread["CapInh"].as_str()),
            (BIND, "0000000000000000")
        );
        assert_eq!(thread["CapBnd"], "0000000000000000");
    }
    child.kill().await.unwrap();
}

/// The protocol of sd_notify(3).
#[tokio::test]
async fn whoever_started_it_is_told_when_it_serves_and_when_it_ends() {
    let echo = echo::echo().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let heard = |socket: &UnixDatagram| {
        let mut text = [0; 256];
        let length = socket.recv(&mut text).unwrap();
        String::from_utf8_lossy(&text[..length]).into_owned()
    };
    let described = echo::in_front_of(&echo).env("NOTIFY_SOCKET", path.to_str().unwrap());
    let mut proxy = described.start().await;
    assert_eq!(heard(&socket), "READY=1\n");
    proxy.terminate().await;
    assert_eq!(heard(&socket), "STOPPING=1\n");
    proxy.ended().await;
}

const UNIT: &str = include_str!("../../deploy/systemd/tollgate.service");

/// The unit as shipped, but for a program that is on this machine.
fn unit(dir: &Path) -> String {
    let file = dir.join("tollgate.service");
    let here = UNIT.replace("/usr/bin/tollgate", super::support::proxy::TOLLGATE);
    fs::write(&file, here).unwrap();
    file.display().to_string()
}

/// `systemd-analyze` of Debian's package `systemd`.
#[tokio::test]
async fn the_systemd_unit_is_valid_and_rated_safe() {
    let analyze = client!("systemd-analyze");
    let dir = tempfile::tempdir().unwrap();
    let unit = unit(dir.path());
    let run = async |args: &[&str]| {
        let mut command = Command::new(&analyze);
        command
            .args(args)
            .arg(&unit)
            .env("SYSTEMD_LOG_TARGET", "console");
        finish(command).await
    };
    let verified = run(&["verify", "--man=no"]).await;
    let complaints = verified
        .stderr
        .lines()
        .filter(|line| line.contains("tollgate"));
    assert_eq!(complaints.collect::<Vec<_>>(), Vec::<&str>::new());
    // From 0 (nothing is open) to 100; systemd calls what is below 20 `OK`, and most services are above 90.
    let rated = run(&["security", "--offline=yes", "--threshold=20", "--no-pager"]).await;
    assert_eq!(rated.code, Some(0), "{}", rated.stdout);
}

/// What the unit forbids from outside is what the process gives up itself.
#[test]
fn the_systemd_unit_says_what_the_process_does() {
    for line in [
        "Type=notify",
        "NoNewPrivileges=yes",
        "CapabilityBoundingSet=",
        "LimitCORE=0",
        "ProtectSystem=strict",
        "MemoryDenyWriteExecute=yes",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
        "LoadCredential=anthropic:/etc/tollgate/secrets/anthropic",
    ] {
        assert!(UNIT.lines().any(|l| l == line), "{line}");
    }
    let calls = "SystemCallFilter=@system-service seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self";
    assert!(UNIT.contains(calls), "its own filters need them");
}
