//! Owns the real `tollgate` binary under measure, with a policy as operators write them.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::certs::Certificates;
use crate::client;
use crate::fixture::{HOST, HTTP2_HOST, LOCAL_HOSTS, PASSED_HOST};
use crate::origin::{Addresses, SECRET};
use crate::process::{Output, Process};
use crate::report::Column;
use crate::subject::{Subject, Way};

/// What the agent holds instead of the secret.
const PLACEHOLDER: &str = "sk-ant-api03-a-placeholder-9876543210zyxwvutsrqponmlkjihgfedcba9876543210zyxwvutsrqponmlkjihgfedcbaAA";

const DOCUMENTS: &str = "
apiVersion: tollgate.dev/v1alpha1
kind: EgressPolicy
metadata: { name: agents }
spec:
  egress:
    - hosts: [api.anthropic.com, '*.bench.example']
      http:
        - { methods: [GET, POST], paths: [/v1/messages, /v1/messages/**] }
        - { methods: [POST], paths: [/v1/upload] }
        - { methods: [GET], paths: ['/v1/download/**', '/v1/events/**'] }
      credentials: [anthropic]
    - hosts: [passed.bench.example]
      tls: Intercept
      http:
        - { methods: [GET], paths: ['/v1/events/**'] }
    - hosts: [github.com, api.github.com]
      http:
        - { methods: [GET], paths: [/repos/**] }
    - hosts: [registry.npmjs.org, pypi.org, files.pythonhosted.org]
---
apiVersion: tollgate.dev/v1alpha1
kind: EgressCredential
metadata: { name: anthropic }
spec:
  hosts: [api.anthropic.com, '*.bench.example']
  placements:
    - header: { name: x-api-key }
    - bearer: {}
";

/// Whether exchanges are logged.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Log {
    #[default]
    Off,
    File,
}

/// Which exchanges become spans.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Spans {
    #[default]
    Off,
    /// They could; none does.
    None(SocketAddr),
    /// Every one.
    All(SocketAddr),
}

/// What agents may spend. All of it is far away.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Budgets {
    /// None, and nobody is told apart.
    #[default]
    None,
    /// None, and as many agents as call at once.
    Unlimited,
    /// Three for each of as many agents as call at once.
    Few,
    /// Three for each of [`MANY_AGENTS`].
    Many,
}

/// What one has to do besides passing requests on.
#[derive(Clone, Copy, Default)]
pub struct Setup {
    pub log: Log,
    pub budgets: Budgets,
    pub spans: Spans,
}

impl Setup {
    /// The same with these budgets.
    pub fn with(self, budgets: Budgets) -> Self {
        Self { budgets, ..self }
    }

    /// The same with as many agents as call at once.
    pub fn told_apart(self) -> Self {
        self.with(Budgets::Unlimited)
    }
}

/// So many agents call at once.
pub const CALLERS: usize = 16;

/// How many agents are told apart where budgets are many.
pub const MANY_AGENTS: usize = 10_000;
/// Agents whose budgets stand in one file.
const AGENTS_A_FILE: usize = 150;

/// The name of the agent with this number.
pub fn agent_name(index: usize) -> String {
    format!("team-{}/agent-{index}", index % 100)
}

/// What it shows for itself.
pub fn agent_token(index: usize) -> String {
    format!("tollgate-agent-token-of-the-benchmark-{index}")
}

impl Budgets {
    fn column(self) -> Column {
        match self {
            Self::None | Self::Unlimited => Column::Tollgate,
            Self::Few => Column::Budgets,
            Self::Many => Column::ManyBudgets,
        }
    }

    /// The numbers of the agents that are told apart. Those who call are far apart among the many.
    fn agents(self) -> Vec<usize> {
        match self {
            Self::None => Vec::new(),
            Self::Unlimited | Self::Few => (0..CALLERS).map(caller).collect(),
            Self::Many => (0..MANY_AGENTS).collect(),
        }
    }

    /// Writes its documents, and gives what the configuration says of its agents.
    fn write(self, dir: &Path) -> String {
        let (budgets, tokens) = (dir.join("budgets"), dir.join("tokens"));
        std::fs::create_dir_all(&budgets).unwrap();
        std::fs::create_dir_all(&tokens).unwrap();
        let agents = self.agents();
        let mut identity = match agents.is_empty() {
            true => String::new(),
            false => "  identity:\n    agents:\n".to_owned(),
        };
        for (file, agents) in agents.chunks(AGENTS_A_FILE).enumerate() {
            let mut documents = String::new();
            for &index in agents {
                let name = agent_name(index);
                let matching = format!("agents: [{name}], ");
                documents += &budgets_of(&format!("agent-{index}"), &matching);
                std::fs::write(tokens.join(index.to_string()), agent_token(index)).unwrap();
                writeln!(
                    identity,
                    "      - {{ name: {name}, token: {{ file: {{ path: tokens/{index} }} }} }}"
                )
                .unwrap();
            }
            if self != Self::Unlimited {
                std::fs::write(budgets.join(format!("{file:03}.yaml")), documents).unwrap();
            }
        }
        identity
    }
}

/// The agent behind the connection with this number.
pub fn caller(connection: usize) -> usize {
    connection * (MANY_AGENTS / CALLERS)
}

/// Dollars a day, tokens an hour, and a budget that does not count these calls.
fn budgets_of(name: &str, matching: &str) -> String {
    let limits = [
        (
            "dollars",
            "*",
            "{ unit: usd, max: '1000000', window: { calendar: day } }",
        ),
        (
            "tokens",
            "claude-*",
            "{ unit: tokens, max: 1000000000000, window: { rolling: 1h } }",
        ),
        (
            "others",
            "gpt-*",
            "{ unit: usd, max: '5', window: { calendar: day } }",
        ),
    ];
    let document = |(kind, models, limit): (&str, &str, &str)| {
        format!(
            "---\napiVersion: tollgate.dev/v1alpha1\nkind: EgressBudget\nmetadata: {{ name: {name}-{kind} }}\n\
             spec:\n  match: {{ {matching}models: ['{models}'] }}\n  limits:\n    - {limit}\n"
        )
    };
    limits.map(document).concat()
}

/// A running tollgate.
pub struct Tollgate {
    pub process: Process,
    pub subject: Subject,
}

impl Tollgate {
    /// Starts one whose names all lead to the origin.
    pub fn start(dir: &Path, certificates: &Certificates, origin: Addresses, setup: Setup) -> Self {
        Self::start_under(&[], dir, certificates, origin, setup)
    }

    /// The same, started by the program with these words.
    pub fn start_under(
        words: &[String],
        dir: &Path,
        certificates: &Certificates,
        origin: Addresses,
        setup: Setup,
    ) -> Self {
        let Setup {
            log,
            budgets,
            spans,
        } = setup;
        std::fs::create_dir_all(dir).unwrap();
        let mut resolve = format!(
            "      {HOST}: ['{}']\n      {HTTP2_HOST}: ['{}']\n      {PASSED_HOST}: ['{}']\n",
            origin.http1, origin.http2, origin.http1
        );
        for index in 0..LOCAL_HOSTS {
            writeln!(
                resolve,
                "      h{index}.bench.example: ['{}']",
                origin.http1
            )
            .unwrap();
        }
        let log = match log {
            Log::Off => "'off'".to_owned(),
            Log::File => format!("{{ file: {}/access.log }}", dir.display()),
        };
        let (at, ca) = (dir.display(), certificates.authority.display());
        let identity = budgets.write(dir);
        let more = match budgets {
            Budgets::None | Budgets::Unlimited => "",
            Budgets::Few | Budgets::Many => ", budgets",
        };
        let mut command = command(words);
        // Profilers and valgrind write files of their own.
        let hardening = match command.get_program() == BINARY {
            true => "BestEffort",
            false => "Off",
        };
        let config = format!(
            "apiVersion: tollgate.dev/v1alpha1\nkind: TollgateConfig\nmetadata: {{ name: bench }}\nspec:\n  \
             listen: 127.0.0.1:0\n  admin: {{ listen: '127.0.0.1:0' }}\n  stateDir: {at}/state\n  accessLog: {log}\n  \
             hardening: {{ mode: {hardening} }}\n  limits: {{ leaves: {{ mints: 100000/s, mintsPerAgent: 100000/s }} }}\n  \
             documents: [documents.yaml{more}]\n{identity}  upstream:\n    roots: {{ file: {ca} }}\n    resolve:\n{resolve}"
        );
        let secret = dir.join("secret");
        std::fs::write(&secret, SECRET).unwrap();
        let rest = format!(
            "  source: {{ file: {{ path: {} }} }}\n  placeholder: {{ value: {PLACEHOLDER} }}\n",
            secret.display()
        );
        std::fs::write(dir.join("documents.yaml"), format!("{DOCUMENTS}{rest}")).unwrap();
        let file = dir.join("tollgate.yaml");
        std::fs::write(&file, config).unwrap();
        command.env_clear().arg("serve").arg("--config").arg(file);
        let sampled = match spans {
            Spans::Off => None,
            Spans::None(collector) => Some((collector, "always_off")),
            Spans::All(collector) => Some((collector, "always_on")),
        };
        if let Some((collector, sampler)) = sampled {
            let endpoint = format!("http://{collector}");
            command.env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint);
            command.env("OTEL_TRACES_SAMPLER", sampler);
            // At full speed the specification's queue is full within a tenth of a second.
            command.env("OTEL_BSP_MAX_QUEUE_SIZE", "65536");
            command.env("OTEL_BSP_SCHEDULE_DELAY", "1000");
        }
        let (process, address) = Process::start(&mut command, Output::Stderr, listening);
        let subject = Subject {
            column: match spans {
                Spans::All(_) if budgets != Budgets::None => Column::Everything,
                Spans::Off => budgets.column(),
                Spans::None(_) => Column::Unsampled,
                Spans::All(_) => Column::Spans,
            },
            address,
            way: Way::Connect(443),
            key: PLACEHOLDER,
            tls: client::tls(&dir.join("state/ca.crt")),
            authorization: None,
        };
        let subject = match budgets {
            Budgets::None => subject,
            _ => subject.agent(0),
        };
        Self { process, subject }
    }
}

const BINARY: &str = env!("CARGO_BIN_EXE_tollgate");

/// The binary, started by these words, or by the profiler that `BENCH_UNDER` names, if it names one.
fn command(words: &[String]) -> Command {
    let under = std::env::var("BENCH_UNDER").unwrap_or_default();
    let under = under.split_whitespace().map(str::to_owned);
    let mut words = words
        .iter()
        .cloned()
        .chain(under)
        .chain([BINARY.to_owned()]);
    let mut command = Command::new(words.next().unwrap());
    command.args(words);
    command
}

fn listening(line: &str) -> Option<SocketAddr> {
    let address = line.split("listen=").nth(1)?;
    address.split_whitespace().next()?.parse().ok()
}
