//! Chromium without a window, driven over the WebDriver protocol, and pictures taken of it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::process::Process;

/// One browser with one page.
pub struct Browser {
    port: u16,
    session: String,
    profile: PathBuf,
    // Dropped last of all fields: the driver has to answer until the session is deleted.
    _driver: Process,
}

/// One of several windows of a browser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window(String);

impl Browser {
    /// Starts a browser with a window of this size, in CSS pixels.
    pub fn start(width: u32, height: u32) -> Browser {
        Browser::start_with(width, height, &[])
    }

    /// The same with more arguments for Chromium.
    pub fn start_with(width: u32, height: u32, more: &[String]) -> Browser {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let mut command = Command::new("chromedriver");
        let mut driver = Process::start("chromedriver", command.arg("--port=0"));
        let line = driver
            .wait_for_line("started successfully on port", Duration::from_secs(20))
            .unwrap_or_else(|error| panic!("{error}"));
        let digits = line.trim_end_matches('.').rsplit(' ').next().expect("a last word");
        let port = digits.parse().unwrap_or_else(|_| panic!("no port in {line:?}"));

        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("chromium-{}-{count}", std::process::id());
        let profile = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let mut arguments = json!([
            "--headless=new",
            // Tests may run as root, where Chromium has no sandbox; it loads our own page only.
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            // What would look for hosts elsewhere.
            "--disable-quic",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-first-run",
            "--autoplay-policy=no-user-gesture-required",
            format!("--user-data-dir={}", profile.display()),
            format!("--window-size={width},{height}"),
        ]);
        let list = arguments.as_array_mut().expect("a list");
        list.extend(more.iter().map(|argument| Value::from(argument.as_str())));
        let wish = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": { "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let reply = call(port, "POST", "/session", &wish);
        let session = reply["sessionId"].as_str().expect("a session id").to_owned();
        Browser { port, session, profile, _driver: driver }
    }

    /// Opens one more window and goes there; what is done from now on is done in it.
    pub fn open_window(&self) -> Window {
        let reply = self.post("/window/new", &json!({ "type": "window" }));
        let window = Window(reply["handle"].as_str().expect("a handle").to_owned());
        self.go_to(&window);
        window
    }

    /// Goes to a window.
    pub fn go_to(&self, window: &Window) {
        self.post("/window", &json!({ "handle": window.0 }));
    }

    /// Closes the window that one is in; one has to go to another.
    pub fn close_window(&self) {
        call(self.port, "DELETE", &self.path("/window"), &Value::Null);
    }

    /// The window that one is in.
    pub fn window(&self) -> Window {
        let reply = call(self.port, "GET", &self.path("/window"), &Value::Null);
        Window(reply.as_str().expect("a handle").to_owned())
    }

    /// Loads a page.
    pub fn open(&self, url: &str) {
        self.post("/url", &json!({ "url": url }));
    }

    /// Runs a function body in the page and returns what it returns.
    pub fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Runs the function body again and again until it returns something true.
    pub fn wait_until(&self, what: &str, script: &str, limit: Duration) -> Value {
        let deadline = Instant::now() + limit;
        loop {
            let value = self.run(script);
            if !matches!(value, Value::Null | Value::Bool(false)) {
                return value;
            }
            if Instant::now() > deadline {
                let log = self.log();
                panic!("the page does not reach: {what}; its console: {log:?}");
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Clicks on the first element that matches the selector, as a script would.
    pub fn click(&self, selector: &str) {
        let selector = Value::from(selector);
        let found = self.run(&format!(
            "const found = document.querySelector({selector}); if (found) found.click(); \
             return found !== null"
        ));
        assert_eq!(found, true, "nothing matches {selector}");
    }

    /// The text that people see.
    pub fn text(&self) -> String {
        self.run("return document.body.innerText").as_str().expect("text").to_owned()
    }

    /// Makes the page believe that the system is dark, or light.
    pub fn prefer(&self, scheme: &str) {
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.developer("Emulation.setEmulatedMedia", &json!({ "features": [feature] }));
    }

    /// Makes the screen that of a phone, which is narrower than a window can be.
    pub fn phone(&self, width: u32, height: u32) {
        let screen = json!({
            "width": width, "height": height, "deviceScaleFactor": 2, "mobile": true,
        });
        self.developer("Emulation.setDeviceMetricsOverride", &screen);
    }

    /// A command of the developer tools.
    fn developer(&self, command: &str, params: &Value) {
        self.post("/goog/cdp/execute", &json!({ "cmd": command, "params": params }));
    }

    /// What the page and the browser wrote to the console since the last call.
    pub fn log(&self) -> Vec<String> {
        let entries = self.post("/se/log", &json!({ "type": "browser" }));
        let entries = entries.as_array().expect("a list");
        entries.iter().map(|entry| entry["message"].to_string()).collect()
    }

    /// A picture of the first element that matches the selector.
    pub fn picture_of(&self, selector: &str) -> Picture {
        let wish = json!({ "using": "css selector", "value": selector });
        let element = self.post("/element", &wish);
        let id = element.as_object().and_then(|found| found.values().next()?.as_str());
        let path = format!("/element/{}/screenshot", id.expect("an element id"));
        Picture::decode(&call(self.port, "GET", &self.path(&path), &Value::Null))
    }

    /// A picture of the visible part of the page.
    pub fn picture(&self) -> Picture {
        Picture::decode(&call(self.port, "GET", &self.path("/screenshot"), &Value::Null))
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        call(self.port, "POST", &self.path(path), body)
    }

    fn path(&self, rest: &str) -> String {
        format!("/session/{}{rest}", self.session)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends the browser. A second panic while a test fails would hide the first.
        if let Err(error) = try_call(self.port, "DELETE", &self.path(""), &Value::Null) {
            eprintln!("the browser did not end: {error}");
        }
        let _ = std::fs::remove_dir_all(&self.profile);
    }
}

/// A decoded picture, 8-bit RGB.
pub struct Picture {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    pixels: Vec<[u8; 3]>,
    file: Vec<u8>,
}

impl Picture {
    fn decode(reply: &Value) -> Picture {
        let text = reply.as_str().expect("a picture as base64");
        let file = STANDARD.decode(text).expect("base64");
        let mut decoder = png::Decoder::new(std::io::Cursor::new(&file));
        decoder.set_transformations(png::Transformations::normalize_to_color8());
        let mut reader = decoder.read_info().expect("PNG");
        let mut bytes = vec![0; reader.output_buffer_size().expect("a size")];
        let info = reader.next_frame(&mut bytes).expect("PNG");
        let pixel = info.color_type.samples();
        assert!(pixel >= 3, "a picture in colour");
        let pixels = bytes[..info.buffer_size()].chunks_exact(pixel);
        Picture {
            width: info.width,
            height: info.height,
            pixels: pixels.map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect(),
            file,
        }
    }

    /// Keeps the picture as a file among cargo's test files, for people to look at.
    pub fn save(&self, name: &str) -> PathBuf {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::write(&path, &self.file).expect("write in the folder for test files");
        path
    }

    /// Part of the pixels that are clearly not black, 0 to 1.
    pub fn lit(&self) -> f64 {
        self.share(|index| self.pixels[index].iter().any(|value| *value > 48))
    }

    /// Part of the pixels that differ clearly from those of the other picture, 0 to 1.
    pub fn changed(&self, other: &Picture) -> f64 {
        assert_eq!((self.width, self.height), (other.width, other.height), "one size");
        self.share(|index| {
            let pairs = self.pixels[index].iter().zip(&other.pixels[index]);
            pairs.into_iter().any(|(one, two)| one.abs_diff(*two) > 40)
        })
    }

    /// Number of clearly different colours that cover at least a hundredth each.
    pub fn colours(&self) -> usize {
        let mut counts = std::collections::HashMap::new();
        for [red, green, blue] in &self.pixels {
            *counts.entry((red / 64, green / 64, blue / 64)).or_insert(0_usize) += 1;
        }
        counts.values().filter(|count| **count * 100 >= self.pixels.len()).count()
    }

    fn share(&self, holds: impl Fn(usize) -> bool) -> f64 {
        let count = (0..self.pixels.len()).filter(|index| holds(*index)).count();
        count as f64 / self.pixels.len() as f64
    }
}

fn call(port: u16, method: &str, path: &str, body: &Value) -> Value {
    try_call(port, method, path, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
}

/// One request to the driver: small enough to need no HTTP library.
fn try_call(port: u16, method: &str, path: &str, body: &Value) -> Result<Value, String> {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let text = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).map_err(text)?;
    stream.set_read_timeout(Some(Duration::from_secs(60))).map_err(text)?;
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).map_err(text)?;
    stream.write_all(body.as_bytes()).map_err(text)?;
    let mut answer = Vec::new();
    // The driver says how long its answer is and may keep the connection open.
    let mut buffer = [0; 1 << 16];
    loop {
        if let Some(value) = whole_answer(&answer)? {
            let error = &value["value"]["error"];
            if error.is_string() {
                return Err(format!("{error}: {}", value["value"]["message"]));
            }
            return Ok(value["value"].clone());
        }
        match stream.read(&mut buffer).map_err(text)? {
            0 => return Err("the driver closed the connection".to_owned()),
            count => answer.extend_from_slice(&buffer[..count]),
        }
    }
}

fn whole_answer(answer: &[u8]) -> Result<Option<Value>, String> {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length = length.ok_or("the driver's answer has no length")?;
    let length: usize = length.trim().parse().map_err(|_| "a length that is no number")?;
    let body = &answer[end + 4..];
    if body.len() < length {
        return Ok(None);
    }
    serde_json::from_slice(&body[..length]).map(Some).map_err(|error| error.to_string())
}
