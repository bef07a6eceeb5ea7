// The index page: lists the live streams, plays one of them, and shows how to publish and play.
//
// Every name on this page was chosen by a publisher, so it reaches the document through
// `textContent` and element properties only, and URLs through `encodeURIComponent`.
"use strict";

(() => {
  const REFRESH_MS = 2000;
  const RETRY_MS_MIN = 1000;
  const RETRY_MS_MAX = 8000;
  const STALL_MS = 8000;
  const DEFAULT_VHOST = "__defaultVhost__";

  const at = (id) => document.getElementById(id);
  const video = at("video");

  const asked = new URLSearchParams(location.search);
  const state = {
    streams: [],
    rtmpPort: 1935,
    listed: false,
    // The stream the person wants to watch: { vhost, app, name }, or null.
    wanted: null,
    protocol: asked.get("protocol") === "ws" ? "ws" : "flv",
    player: null,
    retryMs: RETRY_MS_MIN,
    retryTimer: 0,
    startedAt: 0,
    movedAt: 0,
    lastTime: -1,
    // The first stream of the list is played by itself until the person stops it.
    stopped: asked.get("autoplay") === "0",
  };

  // -- Names and addresses -----------------------------------------------------------------------

  const keyOf = (s) => `${s.vhost}/${s.app}/${s.name}`;
  const titleOf = (s) => `${s.app}/${s.name}`;
  const same = (a, b) => a !== null && b !== null && keyOf(a) === keyOf(b);
  const isDefault = (vhost) => !vhost || vhost === DEFAULT_VHOST;
  const escapePath = (path) => path.split("/").map(encodeURIComponent).join("/");

  // Splits what stands in the address bar, for example `live/demo`: the last part is the stream.
  function parseStream(text, vhost) {
    const parts = (text || "").split("/").filter((part) => part !== "");
    if (parts.length < 2) return null;
    const name = parts.pop().replace(/\.flv$/, "");
    return { vhost: vhost || DEFAULT_VHOST, app: parts.join("/"), name };
  }

  function pathOf(s) {
    const query = isDefault(s.vhost) ? "" : `?vhost=${encodeURIComponent(s.vhost)}`;
    return { path: `/${escapePath(s.app)}/${escapePath(s.name)}`, query };
  }

  function urlsOf(s) {
    const { path, query } = pathOf(s);
    const port = state.rtmpPort === 1935 ? "" : `:${state.rtmpPort}`;
    const ws = location.protocol === "https:" ? "wss:" : "ws:";
    return {
      rtmp: `rtmp://${location.hostname}${port}${path}${query}`,
      flv: `${location.origin}${path}.flv${query}`,
      ws: `${ws}//${location.host}${path}.flv${query}`,
    };
  }

  function pageOf(s) {
    const page = new URLSearchParams();
    page.set("stream", titleOf(s));
    if (!isDefault(s.vhost)) page.set("vhost", s.vhost);
    if (state.protocol === "ws") page.set("protocol", "ws");
    page.set("autoplay", "1");
    // Slashes are allowed in a query and read better than %2F.
    return `${location.pathname}?${page.toString().replaceAll("%2F", "/")}`;
  }

  // -- Small helpers -----------------------------------------------------------------------------

  function element(tag, className, text) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function setText(node, text) {
    // Writing only what changed keeps screen readers quiet and selections alive.
    if (node.textContent !== text) node.textContent = text;
  }

  async function copy(text, button) {
    let done = false;
    try {
      await navigator.clipboard.writeText(text);
      done = true;
    } catch {
      // The clipboard interface exists on https and localhost only; this one works everywhere.
      const area = element("textarea");
      area.value = text;
      area.setAttribute("readonly", "");
      area.className = "skip";
      document.body.append(area);
      area.select();
      done = document.execCommand("copy");
      area.remove();
    }
    const label = button.textContent;
    button.textContent = done ? "Copied" : "Select and copy by hand";
    setTimeout(() => { button.textContent = label; }, 1500);
  }

  function fillLines(box, lines) {
    const wish = JSON.stringify(lines);
    if (box.dataset.lines === wish) return;
    box.dataset.lines = wish;
    box.replaceChildren(...lines.map(([label, text]) => {
      const line = element("div", "line");
      const button = element("button", "copy", "Copy");
      button.type = "button";
      button.setAttribute("aria-label", `Copy: ${label}`);
      button.addEventListener("click", () => copy(text, button));
      line.append(element("span", "", label), element("code", "", text), button);
      return line;
    }));
  }

  // -- What the page shows -----------------------------------------------------------------------

  function plural(n, word) {
    return n === 1 ? `1 ${word}` : `${n} ${word}s`;
  }

  function describe(s) {
    const parts = [];
    if (!isDefault(s.vhost)) parts.push(s.vhost);
    if (s.video) parts.push(s.video);
    if (s.audio) parts.push(s.audio);
    if (s.kbps > 0) parts.push(`${Math.round(s.kbps)} kbit/s`);
    parts.push(plural(s.players, "player"));
    return parts.join(" · ");
  }

  function showStreams() {
    const list = at("streams");
    setText(at("count"), String(state.streams.length));
    at("empty").hidden = state.streams.length > 0;

    const old = new Map([...list.children].map((item) => [item.dataset.key, item]));
    const items = state.streams.map((s) => {
      const key = keyOf(s);
      let item = old.get(key);
      if (!item) {
        item = element("li");
        item.dataset.key = key;
        const button = element("button", "stream");
        button.type = "button";
        button.append(element("b", "", titleOf(s)), element("small"));
        button.addEventListener("click", () => {
          state.stopped = false;
          watch({ vhost: s.vhost, app: s.app, name: s.name });
        });
        item.append(button);
      }
      setText(item.querySelector("small"), describe(s));
      item.firstChild.setAttribute("aria-current", String(same(s, state.wanted)));
      return item;
    });
    // Replacing the children would take the focus away from the button that has it.
    const order = items.map((item) => item.dataset.key).join("\n");
    if (order !== [...list.children].map((item) => item.dataset.key).join("\n")) {
      const focused = document.activeElement;
      list.replaceChildren(...items);
      if (focused && list.contains(focused)) focused.focus();
    }
  }

  function showLines() {
    const host = location.hostname;
    const port = state.rtmpPort === 1935 ? "" : `:${state.rtmpPort}`;
    const server = `rtmp://${host}${port}/live`;
    fillLines(at("publish-lines"), [
      ["ffmpeg, a file",
        `ffmpeg -re -stream_loop -1 -i input.mp4 -c copy -f flv ${server}/livestream`],
      ["ffmpeg, test picture",
        "ffmpeg -re -f lavfi -i testsrc2=size=1280x720:rate=30 -f lavfi -i sine "
        + "-c:v libx264 -preset veryfast -tune zerolatency -pix_fmt yuv420p -g 60 "
        + `-c:a aac -f flv ${server}/livestream`],
      ["OBS, Server", server],
      ["OBS, Stream Key", "livestream"],
    ]);
    const s = state.wanted;
    at("play").hidden = s === null;
    if (s === null) return;
    const urls = urlsOf(s);
    setText(at("play-name"), titleOf(s));
    fillLines(at("play-lines"), [
      ["RTMP (VLC, OBS)", urls.rtmp],
      ["HTTP-FLV", urls.flv],
      ["WebSocket-FLV", urls.ws],
      ["ffplay", `ffplay -fflags nobuffer '${urls.flv}'`],
      ["This page", `${location.origin}${pageOf(s)}`],
    ]);
  }

  function showCover(text) {
    at("cover").hidden = text === "";
    setText(at("cover-text"), text);
  }

  function showFacts() {
    const s = state.streams.find((each) => same(each, state.wanted));
    const playing = state.player !== null && video.readyState >= 2;
    at("facts").hidden = !playing;
    if (!playing) return;
    const facts = [];
    if (video.videoWidth > 0) facts.push(["Picture", `${video.videoWidth} × ${video.videoHeight}`]);
    const ahead = video.buffered.length > 0
      ? video.buffered.end(video.buffered.length - 1) - video.currentTime : 0;
    facts.push(["Buffered", `${Math.max(0, ahead).toFixed(1)} s`]);
    if (video.getVideoPlaybackQuality) {
      facts.push(["Dropped frames", String(video.getVideoPlaybackQuality().droppedVideoFrames)]);
    }
    if (s) {
      if (s.video) facts.push(["Video", s.video]);
      if (s.audio) facts.push(["Audio", s.audio]);
      if (s.kbps > 0) facts.push(["Bit rate", `${Math.round(s.kbps)} kbit/s`]);
      facts.push(["Players", String(s.players)]);
    }
    const box = at("facts");
    const labels = facts.map(([label]) => label).join("\n");
    if (box.dataset.labels !== labels) {
      box.dataset.labels = labels;
      box.replaceChildren(...facts.map(([label]) => {
        const pair = element("div");
        pair.append(element("dt", "", label), element("dd"));
        return pair;
      }));
    }
    facts.forEach(([, value], index) => setText(box.children[index].lastChild, value));
  }

  function showStatus(text) {
    setText(at("status"), text);
  }

  function show() {
    showStreams();
    showLines();
    showFacts();
    at("stop").hidden = state.wanted === null;
    setText(at("watch-title"), state.wanted === null ? "No stream picked" : titleOf(state.wanted));
  }

  // -- Playing -----------------------------------------------------------------------------------

  function destroyPlayer() {
    clearTimeout(state.retryTimer);
    state.retryTimer = 0;
    const player = state.player;
    state.player = null;
    if (!player) return;
    try {
      player.destroy();
    } catch (error) {
      // A player that failed half-way through its start may fail to end as well.
      console.warn("player did not end cleanly", error);
    }
  }

  function retryLater(reason) {
    destroyPlayer();
    if (state.wanted === null) return;
    showStatus(`${reason}, trying again`);
    showCover(`Waiting for ${titleOf(state.wanted)}`);
    state.retryTimer = setTimeout(start, state.retryMs);
    state.retryMs = Math.min(state.retryMs * 2, RETRY_MS_MAX);
  }

  function start() {
    destroyPlayer();
    const s = state.wanted;
    if (s === null) return;
    if (!window.mpegts || !mpegts.isSupported()) {
      showCover("This browser cannot play FLV (it lacks Media Source Extensions). "
        + "Use one of the addresses below in another player.");
      return;
    }
    const live = state.streams.find((each) => same(each, s));
    if (state.listed && !live) {
      // `refresh` starts it as soon as it is listed.
      showCover(`Waiting for ${titleOf(s)} to go live`);
      showStatus("not live");
      return;
    }
    const source = { type: "flv", isLive: true, url: urlsOf(s)[state.protocol] };
    // A live stream's FLV header may promise a track that never comes; the list knows better.
    if (live && (live.video || live.audio)) {
      source.hasVideo = Boolean(live.video);
      source.hasAudio = Boolean(live.audio);
    }
    const player = mpegts.createPlayer(source, {
      enableWorker: false,
      enableStashBuffer: false,
      lazyLoad: false,
      autoCleanupSourceBuffer: true,
      autoCleanupMaxBackwardDuration: 30,
      autoCleanupMinBackwardDuration: 10,
      liveBufferLatencyChasing: true,
      liveBufferLatencyMaxLatency: 2.0,
      liveBufferLatencyMinRemain: 0.5,
    });
    state.player = player;
    state.startedAt = state.movedAt = performance.now();
    state.lastTime = -1;
    player.on(mpegts.Events.ERROR, (kind, detail) => {
      if (player === state.player) retryLater(`${kind}: ${detail}`);
    });
    player.on(mpegts.Events.LOADING_COMPLETE, () => {
      if (player === state.player) retryLater("the stream ended");
    });
    showStatus("connecting");
    player.attachMediaElement(video);
    player.load();
    const started = player.play();
    if (started) started.catch(() => { /* The controls let the person start it. */ });
  }

  function watch(s) {
    state.wanted = s;
    state.retryMs = RETRY_MS_MIN;
    history.replaceState(null, "", pageOf(s));
    document.title = `${titleOf(s)} · ringcast`;
    showCover(`Opening ${titleOf(s)}`);
    start();
    show();
  }

  function stop() {
    destroyPlayer();
    state.wanted = null;
    state.stopped = true;
    history.replaceState(null, "", location.pathname);
    document.title = "ringcast";
    showStatus("");
    showCover(state.streams.length > 0 ? "Pick a stream" : "Nothing is live");
    show();
  }

  // Runs twice a second while a player exists: what the page says about it, and the watch on a
  // connection that stays open but brings nothing.
  function look() {
    if (state.player === null) return;
    const now = performance.now();
    if (video.currentTime !== state.lastTime || video.paused) {
      if (video.currentTime > 0 && !video.paused && state.lastTime >= 0) {
        state.retryMs = RETRY_MS_MIN;
        showCover("");
        const way = state.protocol === "ws" ? "WebSocket-FLV" : "HTTP-FLV";
        showStatus(`playing by ${way}`);
      }
      state.lastTime = video.currentTime;
      state.movedAt = now;
    } else if (now - state.movedAt > STALL_MS) {
      retryLater("nothing arrived");
    }
    if (video.paused && video.readyState >= 2) {
      showCover("");
      showStatus("paused");
    }
    at("unmute").hidden = !video.muted || video.readyState < 2;
    showFacts();
  }

  // -- The list ----------------------------------------------------------------------------------

  function cleanStream(raw) {
    const text = (value) => (typeof value === "string" ? value : "");
    const number = (value) => (Number.isFinite(value) ? value : 0);
    return {
      vhost: text(raw.vhost) || DEFAULT_VHOST,
      app: text(raw.app),
      name: text(raw.name),
      video: text(raw.video),
      audio: text(raw.audio),
      players: number(raw.players),
      kbps: number(raw.kbps),
    };
  }

  async function refresh() {
    try {
      const reply = await fetch("/streams.json", { cache: "no-store" });
      if (!reply.ok) throw new Error(`the server answered ${reply.status}`);
      const body = await reply.json();
      state.streams = (Array.isArray(body.streams) ? body.streams : []).map(cleanStream)
        .sort((a, b) => (keyOf(a) < keyOf(b) ? -1 : 1));
      if (Number.isInteger(body.rtmp_port)) state.rtmpPort = body.rtmp_port;
      state.listed = true;
      at("server").className = "server up";
      setText(at("server"), plural(state.streams.reduce((n, s) => n + s.players, 0), "player"));
    } catch (error) {
      state.listed = false;
      at("server").className = "server down";
      setText(at("server"), error instanceof TypeError ? "server not reachable" : error.message);
    }
    if (state.wanted === null && !state.stopped && state.streams.length > 0) {
      watch(state.streams[0]);
    } else if (state.wanted !== null && state.player === null && state.retryTimer === 0
      && state.streams.some((s) => same(s, state.wanted))) {
      start();
    } else if (state.wanted === null && state.listed) {
      showCover(state.streams.length > 0 ? "Pick a stream" : "Nothing is live");
    }
    show();
  }

  async function refreshForEver() {
    // A hidden page asks rarely: the list is for people who look at it.
    if (!document.hidden) await refresh();
    setTimeout(refreshForEver, REFRESH_MS);
  }

  // -- Start -------------------------------------------------------------------------------------

  for (const radio of document.querySelectorAll("input[name=protocol]")) {
    radio.checked = radio.value === state.protocol;
    radio.addEventListener("change", () => {
      state.protocol = radio.value;
      if (state.wanted !== null) watch(state.wanted);
    });
  }
  at("stop").addEventListener("click", stop);
  at("unmute").addEventListener("click", () => {
    video.muted = false;
    at("unmute").hidden = true;
  });
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) refresh();
  });
  if (window.mpegts) mpegts.LoggingControl.enableAll = false;
  setInterval(look, 500);
  const linked = parseStream(asked.get("stream"), asked.get("vhost"));
  if (linked !== null && !state.stopped) watch(linked);
  else show();
  refreshForEver();
})();
