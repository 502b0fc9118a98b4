//! Owns what most commands begin with: find the settings, seal the environment, open what is needed.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use super::args::Global;
use super::output::Printer;
use crate::app::error::StartError;
use crate::app::sealed;
use crate::app::settings::Settings;
use crate::app::state::StateDir;
use crate::config::located::Located;
use crate::credential::held::Need;
use crate::credential::open::{Patience, SourceContext, open};
use crate::types::secret::Secret;

/// What a command works with.
pub struct Context {
    /// Where it prints.
    pub printer: Printer,
    /// The global flags.
    pub global: Global,
    /// What was taken out of the environment, which can be done once.
    sealed: OnceLock<SourceContext>,
}

impl Context {
    /// From the global flags.
    pub fn new(global: Global) -> Self {
        Self {
            printer: Printer::new(&global),
            global,
            sealed: OnceLock::new(),
        }
    }

    /// The settings of the configuration file, which must be there.
    pub fn settings(&self) -> Result<Settings, StartError> {
        let file = self.global.config.clone().or_else(Settings::find).ok_or_else(|| {
            StartError::setting(
                "there is no configuration file",
                "name one with --config, or write ./tollgate.yaml; `tollgate run --preset NAME -- CMD` needs none",
            )
        })?;
        Ok(Settings::load(&file)?)
    }

    /// The settings of a configuration file if one is named or found, with these presets besides.
    pub fn settings_with(&self, presets: &[String]) -> Result<Settings, StartError> {
        let named = self.global.config.clone().or_else(|| {
            if presets.is_empty() {
                Settings::find()
            } else {
                None
            }
        });
        let mut settings = match named {
            Some(file) => Settings::load(&file)?,
            None => Settings::unwritten(),
        };
        settings
            .presets
            .extend(presets.iter().cloned().map(Located::unwritten));
        Ok(settings)
    }

    /// Takes the secrets out of the environment. May start the process over.
    pub fn sources(&self, settings: &Settings) -> Result<SourceContext, StartError> {
        if let Some(sealed) = self.sealed.get() {
            return Ok(sealed.clone());
        }
        let bundle = settings.bundle()?;
        let names = sealed::names(&settings.root.spec, &bundle);
        let env = sealed::seal(&names).map_err(|error| {
            StartError::setting(format!("the environment cannot be sealed: {error}"), "")
        })?;
        let context = SourceContext {
            env: Arc::new(env),
            path: std::env::var_os("PATH"),
            home: std::env::var_os("HOME"),
        };
        Ok(self.sealed.get_or_init(|| context).clone())
    }

    /// Where the running proxy's admin port is.
    pub fn admin_address(&self, settings: Option<&Settings>) -> SocketAddr {
        let configured = settings
            .and_then(|s| s.root.spec.admin.listen.as_ref())
            .map(|l| l.value);
        let mut address = self
            .global
            .admin
            .or(configured)
            .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 9090)));
        if address.ip().is_unspecified() {
            address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
        }
        address
    }

    /// The running proxy's admin token.
    pub async fn admin_token(&self, settings: &Settings) -> Result<Secret, StartError> {
        let spec = &settings.root.spec;
        match &spec.admin.token {
            None => {
                let state = StateDir::locate(spec.state_dir.as_deref());
                // Making one is for the proxy: it must be able to read its own.
                state
                    .existing_secret("admin.token")?
                    .ok_or_else(|| StartError::Temporary {
                        what: format!("there is no {}", state.file("admin.token").display()),
                        help: "`tollgate serve` makes it; is it running, with this configuration?"
                            .to_owned(),
                    })
            }
            Some(source) => {
                let context = self.sources(settings)?;
                let held = open(
                    "admin-token",
                    source,
                    Need::Required,
                    Patience::Answer,
                    &context,
                )
                .await;
                let secret = held
                    .current()
                    .map_err(|error| StartError::setting(error, "mend spec.admin.token"))?;
                Ok(Secret::new(secret.expose().to_vec()))
            }
        }
    }
}

/// A runtime for a command that serves nothing.
pub fn block_on<T>(future: impl Future<Output = T>) -> Result<T, StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => Ok(runtime.block_on(future)),
        Err(error) => Err(StartError::setting(format!("no event loop: {error}"), "")),
    }
}
