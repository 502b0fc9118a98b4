//! Owns which documents a process works with: the ones a file names, and those a command line adds.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::given_up::GivenUp;
use super::state::StateDir;
use crate::config::bundle::Bundle;
use crate::config::check_budget::check_executions;
use crate::config::error::{ConfigError, SourceFile};
use crate::config::load::{RootDocument, load_bundle, load_config};
use crate::config::located::Located;
use crate::config::root::TollgateConfigSpec;
use crate::types::limits::Limits;

/// The process's own settings, and where its documents are.
pub struct Settings {
    /// `TollgateConfig`.
    pub root: RootDocument,
    /// The file it was read from.
    pub config_file: Option<PathBuf>,
    /// Files and directories with documents.
    pub documents: Vec<PathBuf>,
    /// Presets by name.
    pub presets: Vec<Located<String>>,
    /// Where grants are kept that name no store. A login outlives one run of `tollgate run`, whose other
    /// state does not.
    pub grants: PathBuf,
    /// Where the books of budgets are. What was spent outlives a run as well, or each would have the whole of a
    /// month's money.
    pub ledger: PathBuf,
    /// What the process has given up since it read them.
    pub given_up: GivenUp,
}

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(LOOPBACK, 8888);
const DEFAULT_ADMIN: SocketAddr = SocketAddr::new(LOOPBACK, 9090);

/// In the state directory, where nothing names another file.
const LEDGER: &str = "ledger.db";

/// Where a configuration is looked for when none is named.
const PLACES: &[&str] = &["tollgate.yaml", "/etc/tollgate/tollgate.yaml"];

impl Settings {
    /// Reads the configuration file and finds the documents it names.
    pub fn load(config: &Path) -> Result<Self, Vec<ConfigError>> {
        let root = load_config(config)?;
        // A configuration file may hold the other documents as well.
        let mut documents = vec![config.to_path_buf()];
        documents.extend(root.spec.documents.iter().map(|path| path.value.clone()));
        let presets = root.spec.presets.clone();
        let state = StateDir::locate(root.spec.state_dir.as_deref());
        let ledger = root.spec.ledger.file.clone();
        Ok(Self {
            grants: state.file("oauth"),
            ledger: ledger.unwrap_or_else(|| state.file(LEDGER)),
            root,
            config_file: Some(config.to_path_buf()),
            documents,
            presets,
            given_up: GivenUp::default(),
        })
    }

    /// Settings that nobody wrote: presets only, as `tollgate run` starts with.
    pub fn unwritten() -> Self {
        let file = SourceFile {
            name: "<command line>".to_owned(),
            text: String::new(),
        };
        let root = RootDocument {
            name: "command-line".to_owned(),
            file: Arc::new(file),
            dir: PathBuf::from("."),
            spec: TollgateConfigSpec::default(),
        };
        let state = StateDir::locate(None);
        Self {
            grants: state.file("oauth"),
            ledger: state.file(LEDGER),
            root,
            config_file: None,
            documents: Vec::new(),
            presets: Vec::new(),
            given_up: GivenUp::default(),
        }
    }

    /// The configuration file that is used when none is named.
    pub fn find() -> Option<PathBuf> {
        let home = std::env::var_os("XDG_CONFIG_HOME")
            .map(PathBuf::from)
            .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config")));
        let personal = home.map(|dir| dir.join("tollgate/tollgate.yaml"));
        let mut places = vec![PathBuf::from(PLACES[0])];
        places.extend(personal);
        places.push(PathBuf::from(PLACES[1]));
        places.into_iter().find(|place| place.is_file())
    }

    /// What agents may take of the process.
    pub fn limits(&self) -> Limits {
        let spec = &self.root.spec;
        spec.limits.compiled(spec.identity.agents.len())
    }

    /// Where agents connect.
    pub fn listen(&self) -> SocketAddr {
        let written = self.root.spec.listen.as_ref();
        written.map_or(DEFAULT_LISTEN, |address| address.value)
    }

    /// Where operators connect.
    pub fn admin_listen(&self) -> SocketAddr {
        let written = self.root.spec.admin.listen.as_ref();
        written.map_or(DEFAULT_ADMIN, |address| address.value)
    }

    /// All documents as they stand now.
    pub fn bundle(&self) -> Result<Bundle, Vec<ConfigError>> {
        let bundle = load_bundle(&self.documents, &self.presets)?;
        let errors = check_executions(&bundle, &self.root.spec.identity);
        match errors.is_empty() {
            true => Ok(bundle),
            false => Err(errors),
        }
    }
}
