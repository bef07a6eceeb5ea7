// The table of clients, a page of them at a time.

import { useEffect, useState } from "preact/hooks";
import { count, lag, rate, size, span } from "../common/format";
import { Icon } from "../common/ui";
import type { Client } from "./api";
import { kickClient } from "./actions";
import { link } from "./route";
import { CLIENTS_PAGE, useStore } from "./store";
import { Search } from "./streams";
import { Table, ordered, type Column, type Order } from "./table";

/** Lag beyond which a player is worth a look, ms. */
const LAG_MS = 3_000;

interface ListProps {
  /** Only those of this stream. */
  stream?: string;
  search?: string;
}

export function ClientList({ stream, search = "" }: ListProps) {
  const store = useStore();
  const [start, setStart] = useState(0);
  const [order, setOrder] = useState<Order | null>(null);
  useEffect(() => {
    store.want(stream === undefined ? { start } : { start, stream });
    return () => store.want(null);
  }, [stream, start]);
  const isOurs = store.clientsOf?.stream === stream && store.clientsOf?.start === start;
  if (!isOurs) return <p class="empty">Asking for the clients</p>;

  const columns: Column<Client>[] = [
    {
      label: "Client",
      by: (client) => client.ip,
      cell: (client) => (
        <>
          <span class="mono">{address(client)}</span>
          <small>{client.id}</small>
        </>
      ),
    },
    {
      label: "Does",
      by: (client) => client.type,
      cell: (client) => (
        <>
          <span class={client.publish ? "tag publish" : "tag"}>
            {client.publish ? "publishes" : "plays"}
          </span>
          <small>{client.ringcast.protocol}</small>
        </>
      ),
    },
    ...(stream === undefined
      ? [{
        label: "Stream",
        text: true,
        by: (client: Client) => client.url,
        cell: (client: Client) => (
          <a href={link("streams", client.stream)}>{client.url.replace(/^\//, "")}</a>
        ),
      }]
      : []),
    {
      label: "For",
      number: true,
      by: (client) => client.alive,
      cell: (client) => span(client.alive),
    },
    {
      label: "Rate",
      number: true,
      by: (client) => rateOf(client),
      cell: (client) => rate(rateOf(client)),
    },
    {
      label: "Bytes",
      number: true,
      wide: true,
      by: (client) => bytesOf(client),
      cell: (client) => size(bytesOf(client)),
    },
    {
      label: "Lag",
      number: true,
      by: (client) => client.ringcast.lag_ms,
      cell: (client) => (
        <span class={client.ringcast.lag_ms > LAG_MS ? "warn-text" : ""}>
          {client.publish ? "–" : lag(client.ringcast.lag_ms)}
        </span>
      ),
    },
    {
      label: "Skips",
      number: true,
      by: (client) => client.ringcast.skips,
      cell: (client) => (
        <span class={client.ringcast.skips > 0 ? "warn-text" : ""}>
          {client.publish ? "–" : count(client.ringcast.skips)}
        </span>
      ),
    },
    {
      label: "",
      cell: (client) => (
        <span class="row-buttons">
          <button
            type="button"
            class="button small danger"
            onClick={() => kickClient(client)}
            aria-label={`Kick ${address(client)}`}
          >
            <Icon name="kick" /> Kick
          </button>
        </span>
      ),
    },
  ];
  const words = search.toLowerCase().split(/\s+/);
  const text = (client: Client) =>
    `${address(client)} ${client.id} ${client.type} ${client.url} ${client.ringcast.protocol}`
      .toLowerCase();
  const found = store.clients
    .filter((client) => stream === undefined || client.stream === stream)
    .filter((client) => words.every((word) => text(client).includes(word)));
  const isFull = store.clients.length === CLIENTS_PAGE;
  return (
    <>
      <Table
        caption="Clients"
        columns={columns}
        rows={ordered(found, columns, order)}
        id={(client) => client.id}
        order={order}
        onOrder={setOrder}
        empty={search === "" ? "Nobody is connected." : "Nobody on this page is like that."}
      />
      {(start > 0 || isFull) && (
        <nav class="pages" aria-label="Pages of clients">
          <button
            type="button"
            class="button small"
            disabled={start === 0}
            onClick={() => setStart(Math.max(0, start - CLIENTS_PAGE))}
          >
            <Icon name="back" /> Before
          </button>
          <span class="soft">
            {count(start + 1)} to {count(start + store.clients.length)}
          </span>
          <button
            type="button"
            class="button small"
            disabled={!isFull}
            onClick={() => setStart(start + CLIENTS_PAGE)}
          >
            Next <Icon name="next" />
          </button>
        </nav>
      )}
    </>
  );
}

function address(client: Client): string {
  const ip = client.ip.includes(":") ? `[${client.ip}]` : client.ip;
  return `${ip}:${client.ringcast.port}`;
}

function rateOf(client: Client): number {
  return client.publish ? client.kbps.recv_30s : client.kbps.send_30s;
}

function bytesOf(client: Client): number {
  return client.publish ? client.recv_bytes : client.send_bytes;
}

export function Clients() {
  const store = useStore();
  const [search, setSearch] = useState("");
  return (
    <section class="card flush" aria-labelledby="clients-title">
      <div class="card-head">
        <h1 id="clients-title">
          Clients <span class="badge">{count(store.clientCount())}</span>
        </h1>
        <Search value={search} onInput={setSearch} label="Search this page" />
      </div>
      <ClientList search={search} />
    </section>
  );
}
