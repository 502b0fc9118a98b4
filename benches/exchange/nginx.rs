//! Owns nginx as the plain reverse proxy: TLS on both sides, one header set, nothing buffered.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::certs::Certificates;
use crate::client;
use crate::origin::{Addresses, SECRET};
use crate::process::{Process, free_address};
use crate::report::Column;
use crate::subject::{Subject, Way};

/// A running nginx with two servers: one that logs, one that does not.
pub struct Nginx {
    pub process: Process,
    pub quiet: Subject,
    pub logging: Subject,
}

impl Nginx {
    /// Starts one with as many workers as tollgate has threads.
    pub fn start(dir: &Path, certificates: &Certificates, origin: Addresses, host: &str) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        let (quiet, logging) = (free_address(), free_address());
        let workers = std::thread::available_parallelism().unwrap();
        let (at, ca) = (dir.display(), certificates.authority.display());
        let (leaf, key) = (certificates.leaf.display(), certificates.key.display());
        let upstream = origin.http1;
        let server = |address: SocketAddr, log: &str| {
            format!(
                "server {{ listen {address} ssl; server_name {host}; access_log {log};
                    ssl_certificate {leaf}; ssl_certificate_key {key}; ssl_protocols TLSv1.2 TLSv1.3;
                    location / {{
                        proxy_pass https://origin;
                        proxy_http_version 1.1; proxy_set_header Connection ''; proxy_set_header Host $host;
                        proxy_set_header x-api-key {SECRET};
                        proxy_buffering off; proxy_request_buffering off; proxy_read_timeout 600s;
                        proxy_ssl_server_name on; proxy_ssl_name {host}; proxy_ssl_protocols TLSv1.2 TLSv1.3;
                        proxy_ssl_verify on; proxy_ssl_trusted_certificate {ca};
                    }} }}\n"
            )
        };
        let config = format!(
            "daemon off; user root; pid {at}/pid; error_log {at}/error.log warn;
             worker_processes {workers}; worker_rlimit_nofile 16384;
             events {{ worker_connections 8000; }}
             http {{
                 tcp_nodelay on; keepalive_timeout 600s; keepalive_requests 100000000; client_max_body_size 0;
                 client_body_temp_path {at}/body; proxy_temp_path {at}/proxy; fastcgi_temp_path {at}/fastcgi;
                 uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi;
                 upstream origin {{ server {upstream}; keepalive 256; keepalive_requests 100000000; }}
                 {}{}
             }}",
            server(quiet, "off"),
            server(logging, &format!("{at}/access.log combined")),
        );
        let file = dir.join("nginx.conf");
        std::fs::write(&file, config).unwrap();
        let process = Process::silent(
            Command::new("nginx")
                .arg("-p")
                .arg(dir)
                .arg("-c")
                .arg(&file),
        );
        while TcpStream::connect(quiet).is_err() || TcpStream::connect(logging).is_err() {
            std::thread::sleep(Duration::from_millis(10));
        }
        let tls = client::tls(&certificates.authority);
        let subject = |address| Subject {
            column: Column::Nginx,
            address,
            way: Way::Tls,
            key: "a-key-that-nginx-replaces",
            tls: tls.clone(),
            authorization: None,
        };
        Self {
            process,
            quiet: subject(quiet),
            logging: subject(logging),
        }
    }
}
