//! Credential helpers: `docker-credential-NAME get`, server on stdin, JSON on stdout (github.com/docker/docker-credential-helpers).
//! A helper gets limited time and is killed after it; of its answer a limited number of bytes is read.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

use super::Credentials;
use crate::limits::{HELPER_BYTES_MAX, HELPER_SECONDS_MAX};

/// Asks the helper; `None` where it knows nothing of this server.
pub(super) fn get(name: &str, server: &str) -> Result<Option<Credentials>, String> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if name.is_empty() || !name.bytes().all(fine) {
        return Err("not a helper's name".to_owned());
    }
    run(Command::new(format!("docker-credential-{name}")).arg("get"), server, Duration::from_secs(HELPER_SECONDS_MAX))
}

/// Kills and reaps what still runs when it goes out of scope.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(command: &mut Command, server: &str, time: Duration) -> Result<Option<Credentials>, String> {
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut child = Ended(child.map_err(|e| format!("start: {e}"))?);
    let (Some(mut stdin), Some(stdout)) = (child.0.stdin.take(), child.0.stdout.take()) else {
        return Err("its pipes are gone".to_owned());
    };
    let _ = stdin.write_all(format!("{server}\n").as_bytes()); // one that does not read may still answer
    drop(stdin);
    let (send, answer) = mpsc::channel();
    // The reader ends with the pipe, at the latest when the helper (and what it started) is gone.
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let done = stdout.take(HELPER_BYTES_MAX + 1).read_to_end(&mut bytes);
        let _ = send.send(done.map(|_| bytes));
    });
    let bytes = match answer.recv_timeout(time) {
        Ok(Ok(bytes)) if bytes.len() as u64 > HELPER_BYTES_MAX => {
            return Err(format!("its answer is longer than {HELPER_BYTES_MAX} bytes"));
        }
        Ok(Ok(bytes)) => bytes,
        Ok(Err(e)) => return Err(format!("read: {e}")),
        Err(_) => return Err(format!("no answer within {} s", time.as_secs())),
    };
    let status = child.0.wait().map_err(|e| format!("wait: {e}"))?;
    read(&bytes, status.success())
}

fn read(bytes: &[u8], success: bool) -> Result<Option<Credentials>, String> {
    if !success {
        let text: String =
            String::from_utf8_lossy(bytes).trim().chars().filter(|c| !c.is_control()).take(200).collect();
        return if text.contains("credentials not found") { Ok(None) } else { Err(format!("failed: {text}")) };
    }
    let answer: Value = serde_json::from_slice(bytes).map_err(|e| format!("its answer is no JSON: {e}"))?;
    let text = |name: &str| answer.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (username, secret) = (text("Username"), text("Secret"));
    if secret.is_empty() {
        return Ok(None);
    }
    Ok(Some(match username.as_str() {
        "<token>" => Credentials { username, password: String::new(), identity_token: Some(secret) },
        _ => Credentials { username, password: secret, identity_token: None },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, time: Duration) -> Result<Option<(String, String, Option<String>)>, String> {
        let done = run(Command::new("sh").args(["-c", script]), "r.example", time)?;
        Ok(done.map(|c| (c.username, c.password, c.identity_token)))
    }

    #[test]
    fn answers_are_read() {
        let second = Duration::from_secs(30);
        let echo = r#"read server; echo "{\"ServerURL\":\"$server\",\"Username\":\"me\",\"Secret\":\"for-$server\"}""#;
        assert_eq!(shell(echo, second), Ok(Some(("me".into(), "for-r.example".into(), None))));
        let token = r#"echo '{"Username":"<token>","Secret":"T"}'"#;
        assert_eq!(shell(token, second), Ok(Some(("<token>".into(), String::new(), Some("T".into())))));
        assert_eq!(shell("echo credentials not found in native keychain; exit 1", second), Ok(None));
        assert_eq!(shell("echo no bus; exit 1", second), Err("failed: no bus".to_owned()));
        assert!(shell("echo '{'", second).unwrap_err().contains("no JSON"));
        assert!(shell("head -c 100000 /dev/zero", second).unwrap_err().contains("longer than"));
        for name in ["", "../x", "a b", "a/b"] {
            assert_eq!(get(name, "x").err().as_deref(), Some("not a helper's name"));
        }
    }

    #[test]
    fn one_that_is_not_installed_is_named() {
        assert!(get("none-of-that-name", "x").err().unwrap().starts_with("start: "));
    }

    #[test]
    fn one_that_hangs_is_killed() {
        let began = std::time::Instant::now();
        assert!(shell("exec sleep 60", Duration::from_millis(200)).unwrap_err().contains("no answer"));
        assert!(began.elapsed() < Duration::from_secs(10));
    }
}
