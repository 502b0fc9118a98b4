//! Commands: thin, each over one entry of the floors below.

pub mod args;
pub mod ca;
pub mod check;
pub mod check_grants;
pub mod context;
pub mod creds;
pub mod creds_import;
pub mod creds_list;
pub mod creds_login;
pub mod creds_placeholder;
pub mod creds_refresh;
pub mod dispatch;
pub mod env;
pub mod finding;
pub mod generate;
pub mod launch;
pub mod moment;
pub mod output;
pub mod probe;
pub mod serve;
pub mod why;
