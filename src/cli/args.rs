//! Owns the command line's grammar and help texts, nothing else.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};

use super::since::Since;
use crate::admin::amount::Amount;
use crate::admin::moment::{Edge, Until};
use crate::config::units::Span;

/// A credential-injecting egress proxy for AI agents: the agent holds placeholders, Tollgate holds the keys.
#[derive(Debug, Parser)]
#[command(
    name = "tollgate",
    version,
    propagate_version = true,
    arg_required_else_help = true
)]
pub struct Cli {
    /// What every command understands.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// What every command understands.
#[derive(Debug, Args)]
pub struct Global {
    /// Configuration file; ./tollgate.yaml, then ~/.config/tollgate/tollgate.yaml, then /etc/tollgate/tollgate.yaml when absent.
    #[arg(
        short,
        long,
        global = true,
        env = "TOLLGATE_CONFIG",
        value_name = "FILE"
    )]
    pub config: Option<PathBuf>,
    /// How results are printed.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    pub output: Format,
    /// When to use color.
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto)]
    pub color: Color,
    /// Say more.
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    pub verbose: bool,
    /// Say errors only.
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Admin port of a running proxy; the configuration's when absent.
    #[arg(long, global = true, env = "TOLLGATE_ADMIN", value_name = "ADDR")]
    pub admin: Option<SocketAddr>,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
    /// One line.
    Short,
}

/// When to use color.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the proxy: sidecar, node or gateway.
    Serve,
    /// Run a program behind a proxy of its own, with placeholders in its environment.
    Run(RunArgs),
    /// Check the configuration, the documents, the CA, the credentials and the hardening without serving.
    Check(CheckArgs),
    /// Say which rule decides about a request, and the edit that would change it.
    Why(WhyArgs),
    /// Print the variables that point an agent at the proxy.
    Env(EnvArgs),
    /// The certificate authority that agents trust.
    #[command(subcommand)]
    Ca(CaCommand),
    /// The credentials, never their values.
    #[command(subcommand)]
    Creds(CredsCommand),
    /// What agents have spent, by agent, model, credential or day.
    Spend(SpendArgs),
    /// The budgets: where they stand, and more room for one.
    #[command(subcommand)]
    Budget(BudgetCommand),
    /// Watch exchanges as they happen.
    Tap(TapArgs),
    /// What was refused of late, each with the edit that would allow it.
    Denied(DeniedArgs),
    /// The audit log: a chain of records of what matters to security.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Wait until a running proxy is ready.
    WaitReady(WaitArgs),
    /// Ask a running proxy whether it lives; for probes in images without curl.
    Healthcheck(HealthArgs),
    /// Print derived files.
    #[command(subcommand)]
    Gen(GenCommand),
}

/// `tollgate check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Say what the running proxy has given up, instead.
    #[arg(long)]
    pub running: bool,
}

/// `tollgate run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Presets to allow, by name.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub preset: Vec<String>,
    /// Files or directories with policies and credentials.
    #[arg(long, value_name = "PATH")]
    pub policy: Vec<PathBuf>,
    /// The agent's name.
    #[arg(long, default_value = "me")]
    pub agent: String,
    /// Where exchanges are logged; nowhere when absent.
    #[arg(long, value_name = "FILE")]
    pub access_log: Option<PathBuf>,
    /// Print the variables instead of running anything.
    #[arg(long)]
    pub print_env: bool,
    /// The program and its arguments.
    #[arg(
        trailing_var_arg = true,
        required_unless_present = "print_env",
        value_name = "CMD"
    )]
    pub command: Vec<String>,
}

/// `tollgate why`.
#[derive(Debug, Args)]
pub struct WhyArgs {
    /// The URL.
    pub url: String,
    /// The method.
    #[arg(long, short = 'X', default_value = "GET")]
    pub method: String,
    /// The agent; the configuration's own when absent.
    #[arg(long)]
    pub agent: Option<String>,
    /// Ask the running proxy instead of the files.
    #[arg(long)]
    pub running: bool,
    /// Presets besides the configuration's.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub preset: Vec<String>,
}

/// `tollgate env`.
#[derive(Debug, Args)]
pub struct EnvArgs {
    /// For whom.
    #[arg(long, value_enum, default_value_t = EnvFor::Sh)]
    pub format: EnvFor,
    /// The agent; the configuration's own when absent.
    #[arg(long)]
    pub agent: Option<String>,
    /// Where the agent reaches the proxy; `spec.listen` when absent.
    #[arg(long, value_name = "ADDR")]
    pub address: Option<SocketAddr>,
    /// Directory where the agent sees ca.crt and bundle.crt; where the proxy writes them when absent.
    #[arg(long, value_name = "DIR")]
    pub trust_dir: Option<PathBuf>,
}

/// Whose syntax the variables are printed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EnvFor {
    /// A POSIX shell.
    Sh,
    /// A .env file.
    Dotenv,
    /// A container of a pod.
    K8s,
    /// A Dockerfile.
    Dockerfile,
}

/// `tollgate ca`.
#[derive(Debug, Subcommand)]
pub enum CaCommand {
    /// Make the authority, its names taken from the policy.
    Init {
        /// Replace an authority that is there; agents need the new bundle then.
        #[arg(long)]
        force: bool,
    },
    /// Say what the authority is and may sign.
    Show,
    /// Print the system's roots and the authority, for agents.
    Bundle,
    /// Print the authority's certificate.
    Export {
        /// Print its private key as well. Whoever has it can impersonate every name it may sign.
        #[arg(long)]
        with_private_key: bool,
    },
}

/// `tollgate creds`.
#[derive(Debug, Subcommand)]
pub enum CredsCommand {
    /// State of every credential.
    List,
    /// Exit with 1 unless every credential that is needed can be used.
    Check {
        /// Only these.
        names: Vec<String>,
    },
    /// Log in for an OAuth credential: prints where to go, and reads the code from standard input.
    Login(LoginArgs),
    /// Take over the login that Claude Code or Codex keeps in a file.
    Import(ImportArgs),
    /// Renew an OAuth credential's token now.
    Refresh {
        /// The credential.
        name: String,
    },
    /// Print what an agent gets instead of the real thing.
    Placeholder(PlaceholderArgs),
}

/// `tollgate creds login`.
#[derive(Debug, Args)]
pub struct LoginArgs {
    /// The credential.
    pub name: String,
    /// Paste a code, even where one could be entered on another device.
    #[arg(long)]
    pub paste: bool,
    /// Open no browser. None is ever opened; for scripts that say so.
    #[arg(long)]
    pub no_browser: bool,
}

/// `tollgate creds import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// `~/.claude/.credentials.json`, `~/.codex/auth.json`, or a file with a refresh token alone; `-` for standard input.
    pub file: PathBuf,
    /// The credential; the only one it can be for when absent.
    #[arg(long = "as", value_name = "NAME")]
    pub credential: Option<String>,
    /// Take it over even if a login is held that can be used.
    #[arg(long)]
    pub replace: bool,
}

/// `tollgate creds placeholder`.
#[derive(Debug, Args)]
pub struct PlaceholderArgs {
    /// The credential.
    pub name: String,
    /// The agent; the configuration's own when absent.
    #[arg(long)]
    pub agent: Option<String>,
    /// As what.
    #[arg(long, value_enum, default_value_t = PlaceholderFormat::Text)]
    pub format: PlaceholderFormat,
}

/// In which form a placeholder is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PlaceholderFormat {
    /// Alone.
    Text,
    /// Claude Code's `~/.claude/.credentials.json`.
    Claude,
    /// Codex's `~/.codex/auth.json`.
    Codex,
}

/// `tollgate spend`.
#[derive(Debug, Args)]
pub struct SpendArgs {
    /// What is added up together.
    #[arg(long, value_enum, default_value_t = GroupedBy::Agent)]
    pub by: GroupedBy,
    /// From when on: a day of UTC (2026-11-01), or a moment (2026-11-01T18:00:00Z); everything when absent.
    #[arg(long, value_name = "DATE", value_parser = Edge::parse)]
    pub from: Option<Edge>,
    /// Until when: a day of UTC, that day included, or a moment; now when absent.
    #[arg(long, value_name = "DATE", value_parser = Edge::parse)]
    pub until: Option<Edge>,
    /// Of this agent alone.
    #[arg(long)]
    pub agent: Option<String>,
    /// Print comma-separated values (RFC 4180), for spreadsheets.
    #[arg(long)]
    pub csv: bool,
}

/// What is added up together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GroupedBy {
    /// Each agent.
    Agent,
    /// Each model, as the provider names it.
    Model,
    /// Each credential.
    Credential,
    /// Each day, of UTC.
    Day,
}

/// `tollgate budget`.
#[derive(Debug, Subcommand)]
pub enum BudgetCommand {
    /// Where every limit stands, or those of one budget.
    Show {
        /// The budget.
        name: Option<String>,
    },
    /// Let more be spent for a while. The running proxy takes it at once, and writes down who asked and why.
    Raise(RaiseArgs),
    /// Let what was spent in the present window count no more.
    Reset(ResetArgs),
}

/// `tollgate budget raise`.
#[derive(Debug, Args)]
pub struct RaiseArgs {
    /// The budget.
    pub name: String,
    /// By how much: 5usd, 100000tokens, 20requests.
    #[arg(long, value_name = "AMOUNT", value_parser = Amount::parse, allow_hyphen_values = true)]
    pub by: Amount,
    /// Until when: 18:00 (in the limit's time zone), 2026-11-22T18:00:00Z, 2h, or `never`; the end of the
    /// present window when absent.
    #[arg(long, value_name = "TIME", value_parser = Until::parse)]
    pub until: Option<Until>,
    /// For whom, and why.
    #[command(flatten)]
    pub what: AmendArgs,
}

/// `tollgate budget reset`.
#[derive(Debug, Args)]
pub struct ResetArgs {
    /// The budget.
    pub name: String,
    /// For whom, and why.
    #[command(flatten)]
    pub what: AmendArgs,
}

/// What every change of a budget says.
#[derive(Debug, Args)]
pub struct AmendArgs {
    /// For this agent alone, where agents are counted apart.
    #[arg(long, conflicts_with = "scope")]
    pub agent: Option<String>,
    /// For this group of calls, as `tollgate budget show` names it (`agent=team-a/scan`), or `all`.
    #[arg(long)]
    pub scope: Option<String>,
    /// The limit with this window, where a budget has several: day, month, 1h, total.
    #[arg(long)]
    pub window: Option<String>,
    /// Why. It is kept with the change.
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    pub reason: String,
}

/// `tollgate tap`.
#[derive(Debug, Args)]
pub struct TapArgs {
    /// Of this agent alone.
    #[arg(long)]
    pub agent: Option<String>,
    /// With this host alone, or with the hosts below a name: '*.example.com'.
    #[arg(long)]
    pub host: Option<String>,
    /// Only what is refused, or would be in enforce mode.
    #[arg(long)]
    pub denied: bool,
    /// Print records as JSON, one a line, with the fields of the access log.
    #[arg(long)]
    pub json: bool,
}

/// `tollgate denied`.
#[derive(Debug, Args)]
pub struct DeniedArgs {
    /// How far back: 24h, 30m, 7d. No more than a week is kept at hand.
    #[arg(long, default_value = "24h", value_parser = span, value_name = "TIME")]
    pub since: Duration,
    /// Of this agent alone.
    #[arg(long)]
    pub agent: Option<String>,
    /// Go on with what is refused from now on.
    #[arg(long)]
    pub follow: bool,
    /// Print JSON; with --follow one group a line.
    #[arg(long)]
    pub json: bool,
}

/// `tollgate audit`.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Print records, oldest first. Reads the files; no proxy need run.
    List(AuditListArgs),
    /// Check that every record is as it was written, and none is missing. Exits with 1 otherwise.
    Verify(AuditVerifyArgs),
}

/// `tollgate audit list`.
#[derive(Debug, Args)]
pub struct AuditListArgs {
    /// The log's current file; the configuration's when absent.
    pub file: Option<PathBuf>,
    /// From when on: 24h ago, a day of UTC (2026-11-01), or a moment (2026-11-01T18:00:00Z).
    #[arg(long, value_name = "TIME", value_parser = Since::parse)]
    pub since: Option<Since>,
    /// Of this agent alone.
    #[arg(long)]
    pub agent: Option<String>,
    /// Of this event alone: refused, canary, credential_used, policy_reloaded, ...
    #[arg(long)]
    pub event: Option<String>,
    /// Print the records as they stand, one a line.
    #[arg(long)]
    pub json: bool,
}

/// `tollgate audit verify`.
#[derive(Debug, Args)]
pub struct AuditVerifyArgs {
    /// The log's current file, with its rotated files beside it; the configuration's when absent.
    pub file: Option<PathBuf>,
    /// Check the signatures of heads with this public key (PEM). Several after a change of keys.
    #[arg(long, value_name = "FILE")]
    pub key: Vec<PathBuf>,
    /// A record's hash that was kept elsewhere: it must be in the chain. Without this or a key, nobody can
    /// tell that records were cut off at the end.
    #[arg(long, value_name = "HASH")]
    pub expect_head: Option<String>,
}

/// `tollgate wait-ready`.
#[derive(Debug, Args)]
pub struct WaitArgs {
    /// How long.
    #[arg(long, default_value = "60s", value_parser = span)]
    pub timeout: Duration,
}

/// `tollgate healthcheck`.
#[derive(Debug, Args)]
pub struct HealthArgs {
    /// Ask whether it is ready rather than alive.
    #[arg(long)]
    pub ready: bool,
}

/// `tollgate gen`.
#[derive(Debug, Subcommand)]
pub enum GenCommand {
    /// Shell completions.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// The manual page.
    Man,
    /// The JSON Schema of all documents, for editors.
    Schema,
    /// The Grafana dashboard.
    Dashboards,
    /// Recording and alerting rules for Prometheus.
    Alerts,
    /// The reference of metrics, log fields and whatever else is told, in Markdown.
    Docs,
    /// The built-in presets: their names, or one preset's documents.
    Presets {
        /// The preset.
        name: Option<String>,
    },
}

fn span(text: &str) -> Result<Duration, String> {
    Span::parse(text).map(|span| span.0)
}
