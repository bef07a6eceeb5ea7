// The process and its machine, each shard, and every counter of what was refused or dropped.

import { count, percent, rate, size, span } from "../common/format";
import { Icon } from "../common/ui";
import type { ServerInfo, Shard } from "./api";
import { reload } from "./actions";
import { useStore } from "./store";
import { Facts, reasonText } from "./stream";
import { Table, type Column } from "./table";

/** Ends that are nobody's fault. */
const USUAL = new Set(["peer_closed", "duration_reached", "stream_ended", "shutdown", "kicked"]);

export function Server() {
  const { summaries, server, shards, history } = useStore();
  const own = summaries?.self;
  const system = summaries?.system;
  const last = history[history.length - 1];
  const { used, limit } = server.media_memory;
  const loads = [system?.load_1m, system?.load_5m, system?.load_15m];
  const ram = size((system?.mem_ram_kbyte ?? 0) * 1024);
  const facts: [string, string][] = [
    ["Version", own?.version ?? "–"],
    ["Up for", span(own?.srs_uptime ?? 0)],
    ["Process", String(own?.pid ?? "–")],
    ["CPU", `${percent(own?.cpu_percent ?? 0)} of one core`],
    ["Memory", size((own?.mem_kbyte ?? 0) * 1024)],
    ["Sending", rate(last?.sent ?? 0)],
    ["Receiving", rate(last?.received ?? 0)],
    ["Machine", `${percent(system?.cpu_percent ?? 0)} of ${system?.cpus_online ?? "–"} CPUs`],
    ["Machine's memory", `${percent(system?.mem_ram_percent ?? 0)} of ${ram}`],
    ["Load", loads.map((load) => (load ?? 0).toFixed(2)).join("  ")],
  ];
  if (limit > 0) facts.push(["Media memory", `${size(used)} of ${size(limit)}`]);
  const { hooks, api } = server;
  facts.push(["API connections", count(api.connections)]);
  if (hooks.calls > 0) {
    facts.push(["Hooks called", `${count(hooks.calls)}, ${hooks.mean_ms} ms each`]);
    facts.push(["Hooks without answer", count(hooks.failed)]);
  }
  if (server.max_connections > 0) {
    const most = count(server.max_connections);
    facts.push(["Connections", `${count(server.connections)} of ${most}`]);
  }
  return (
    <div class="stack">
      <section class="card" aria-labelledby="server-title">
        <div class="card-head plain">
          <h1 id="server-title">Server</h1>
          <span class="row-buttons">
            <a class="button" href="../api/v1/" target="_blank" rel="noreferrer">API</a>
            <button
              type="button"
              class="button"
              disabled={!server.may_reload}
              title={server.may_reload
                ? "Read the configuration anew"
                : "Allowed by http_api.raw_api.enabled and http_api.raw_api.allow_reload"}
              onClick={reload}
            >
              <Icon name="reload" /> Reload configuration
            </button>
          </span>
        </div>
        <Facts facts={facts} />
        <dl class="facts long">
          <div>
            <dt>Command</dt>
            <dd class="mono">{own?.argv ?? "–"}</dd>
          </div>
          <div>
            <dt>Started in</dt>
            <dd class="mono">{own?.cwd ?? "–"}</dd>
          </div>
        </dl>
      </section>
      <section class="card flush" aria-labelledby="shards-title">
        <div class="card-head"><h2 id="shards-title">Shards</h2></div>
        <Table
          caption="Shards"
          columns={COLUMNS}
          rows={shards.map((shard, index) => ({ ...shard, index }))}
          id={(shard) => String(shard.index)}
          empty="No shard has told anything yet."
        />
      </section>
      <section class="card" aria-labelledby="reasons-title">
        <h2 id="reasons-title">Refused, closed, dropped, skipped</h2>
        <Reasons counts={[...shards.map((shard) => shard.reasons), refusedByApi(server)]} />
      </section>
    </div>
  );
}

type Row = Shard & { index: number };

const COLUMNS: Column<Row>[] = [
  { label: "Shard", cell: (shard) => shard.index },
  {
    label: "Busy",
    number: true,
    cell: (shard) => (
      <span class="busy">
        <meter min="0" max="1000" high={800} optimum={0} value={shard.busy_permille} />
        {percent(shard.busy_permille / 1000)}
      </span>
    ),
  },
  { label: "Connections", number: true, cell: (shard) => count(shard.connections) },
  { label: "Players", number: true, cell: (shard) => count(shard.players) },
  { label: "Publishers", number: true, cell: (shard) => count(shard.publishers) },
  { label: "Sent", number: true, cell: (shard) => size(shard.send_bytes) },
  { label: "Received", number: true, wide: true, cell: (shard) => size(shard.recv_bytes) },
  { label: "Sends", number: true, wide: true, cell: (shard) => count(shard.sends) },
  {
    label: "Window",
    number: true,
    wide: true,
    cell: (shard) => `${(shard.window_us / 1000).toFixed(1)} ms`,
  },
];

function refusedByApi(server: ServerInfo): Record<string, number> {
  const entries = Object.entries(server.api.refused);
  return Object.fromEntries(entries.map(([reason, n]) => [`API: ${reason}`, n]));
}

function Reasons({ counts }: { counts: Record<string, number>[] }) {
  const sums = new Map<string, number>();
  for (const some of counts) {
    for (const [reason, n] of Object.entries(some)) sums.set(reason, (sums.get(reason) ?? 0) + n);
  }
  if (sums.size === 0) return <p class="calm"><Icon name="done" /> Nothing to count yet.</p>;
  const rows = [...sums].sort((a, b) => b[1] - a[1]);
  return (
    <dl class="facts">
      {rows.map(([reason, n]) => (
        <div key={reason}>
          <dt>{reasonText(reason)}</dt>
          <dd class={USUAL.has(reason) ? "" : "warn-text"}>{count(n)}</dd>
        </div>
      ))}
    </dl>
  );
}
