//! One look at a container: a request, a connection or a command.

use std::time::Duration;

use mote_api::tree::{Value, at, list_at, str_at};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Job;
use crate::worker::describe::process_of;

/// Bytes of an answer that are read; the status line is what counts.
const ANSWER_BYTES_MAX: usize = 10 << 10;
/// Bytes of a command's output kept for the event.
const OUTPUT_BYTES_MAX: u32 = 1024;

/// Whether the container passes; the error is what `kubectl describe` shows.
pub(super) async fn check(job: &Job, probe: &Value, timeout: Duration) -> Result<(), String> {
    if let Some(exec) = at(probe, &["exec"]) {
        let args: Vec<String> =
            list_at(exec, &["command"]).iter().filter_map(Value::as_str).map(str::to_owned).collect();
        return command(job, args, timeout).await;
    }
    let network = async {
        if let Some(get) = at(probe, &["httpGet"]) {
            http(job, get).await
        } else if let Some(socket) = at(probe, &["tcpSocket"]) {
            let (host, port) = target(job, socket)?;
            TcpStream::connect((host.as_str(), port))
                .await
                .map(|_| ())
                .map_err(|e| format!("dial tcp {host}:{port}: {e}"))
        } else {
            Err("this kind of probe is not supported".into())
        }
    };
    match tokio::time::timeout(timeout, network).await {
        Ok(result) => result,
        Err(_) => Err(format!("no answer within {} s (context deadline exceeded)", timeout.as_secs())),
    }
}

async fn command(job: &Job, args: Vec<String>, timeout: Duration) -> Result<(), String> {
    let known = job.process.borrow().clone();
    let mut process = match known {
        Some(process) => process,
        None => {
            let process = process_of(&job.agent, &job.pod, &job.container).await?;
            *job.process.borrow_mut() = Some(process.clone());
            process
        }
    };
    process.args = args;
    let result = job.agent.keeper.exec(&job.id, process, timeout, OUTPUT_BYTES_MAX).await.map_err(|e| e.to_string())?;
    let output = String::from_utf8_lossy(&result.output);
    match (result.timed_out, result.code) {
        (true, _) => Err(format!("command timed out after {} s", timeout.as_secs())),
        (false, 0) => Ok(()),
        (false, code) if output.trim().is_empty() => Err(format!("command exited with {code}")),
        (false, _) => Err(output.trim().to_owned()),
    }
}

/// Host and port of a probe: the pod's address and a number or a port's name.
fn target(job: &Job, probe: &Value) -> Result<(String, u16), String> {
    let ip = match str_at(probe, &["host"]) {
        "" => job
            .agent
            .said
            .borrow()
            .get(&job.pod.uid)
            .map(|status| str_at(status, &["podIP"]).to_owned())
            .unwrap_or_default(),
        host => host.to_owned(),
    };
    let port = at(probe, &["port"]).ok_or("probe without a port")?;
    let number = match port.as_str() {
        None => port.as_u64(),
        Some(name) => name.parse().ok().or_else(|| {
            let ports =
                job.pod.container(&job.container).map(|wanted| list_at(&wanted.spec, &["ports"])).unwrap_or_default();
            ports
                .iter()
                .find(|entry| str_at(entry, &["name"]) == name)
                .and_then(|entry| entry.get("containerPort")?.as_u64())
        }),
    };
    let number =
        number.and_then(|number| u16::try_from(number).ok()).ok_or_else(|| format!("couldn't find port: {port}"))?;
    Ok((ip, number))
}

async fn http(job: &Job, get: &Value) -> Result<(), String> {
    let (host, port) = target(job, get)?;
    let path = match str_at(get, &["path"]) {
        "" => "/",
        path => path,
    };
    let headers: Vec<(&str, &str)> = list_at(get, &["httpHeaders"])
        .iter()
        .map(|header| (str_at(header, &["name"]), str_at(header, &["value"])))
        .collect();
    if str_at(get, &["scheme"]) == "HTTPS" {
        return Err("HTTPS probes are not supported".into());
    }
    let request = request(&host, port, path, &headers)?;
    let shown = format!("Get \"http://{host}:{port}{path}\"");
    let mut stream =
        TcpStream::connect((host.as_str(), port)).await.map_err(|e| format!("{shown}: dial tcp {host}:{port}: {e}"))?;
    stream.write_all(request.as_bytes()).await.map_err(|e| format!("{shown}: {e}"))?;
    let mut answer = Vec::new();
    let mut buffer = [0u8; 1024];
    while answer.len() < ANSWER_BYTES_MAX && !answer.contains(&b'\n') {
        match stream.read(&mut buffer).await.map_err(|e| format!("{shown}: {e}"))? {
            0 => break,
            n => answer.extend_from_slice(buffer.get(..n).unwrap_or_default()),
        }
    }
    match status_code(&answer) {
        Some(code) if (200..400).contains(&code) => Ok(()),
        Some(code) => Err(format!("HTTP probe failed with statuscode: {code}")),
        None => Err(format!("{shown}: malformed HTTP response")),
    }
}

fn request(host: &str, port: u16, path: &str, headers: &[(&str, &str)]) -> Result<String, String> {
    let bad = |text: &str| text.bytes().any(|b| b < 0x20 || b == 0x7f);
    if bad(path)
        || path.contains(' ')
        || headers.iter().any(|(name, value)| bad(name) || bad(value) || name.contains([':', ' ']))
    {
        return Err("path or header of the probe holds characters HTTP does not allow".into());
    }
    let slash = if path.starts_with('/') { "" } else { "/" };
    let mut text = format!("GET {slash}{path} HTTP/1.1\r\n");
    let has = |wanted: &str| headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(wanted));
    if !has("host") {
        text.push_str(&format!("Host: {host}:{port}\r\n"));
    }
    if !has("user-agent") {
        text.push_str("User-Agent: kube-probe/1.36\r\n");
    }
    if !has("accept") {
        text.push_str("Accept: */*\r\n");
    }
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("Connection: close\r\n\r\n");
    Ok(text)
}

fn status_code(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|b| *b == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.split_whitespace();
    words.next().filter(|version| version.starts_with("HTTP/1."))?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_lines() {
        for (answer, code) in [
            ("HTTP/1.1 200 OK\r\n", Some(200)),
            ("HTTP/1.0 404\r\n", Some(404)),
            ("SSH-2.0-x\r\n", None),
            ("", None),
            ("HTTP/1.1\r\n", None),
        ] {
            assert_eq!(status_code(answer.as_bytes()), code, "{answer}");
        }
    }

    #[test]
    fn requests_cannot_be_split() {
        assert!(request("h", 80, "/x\r\nEvil: 1", &[]).is_err());
        assert!(request("h", 80, "/x", &[("A", "b\r\nc")]).is_err());
        let text = request("h", 80, "x", &[("Host", "y")]).unwrap();
        assert!(text.starts_with("GET /x HTTP/1.1\r\n") && !text.contains("Host: h"));
    }
}
