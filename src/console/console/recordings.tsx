// What is recorded, what waits for its upload, and buttons to begin and end recordings.

import { useEffect, useState } from "preact/hooks";
import { count, plural, size, span } from "../common/format";
import { Icon } from "../common/ui";
import type { Recording, Stream, Upload } from "./api";
import { record } from "./actions";
import { link } from "./route";
import { store, useStore } from "./store";
import { Table, type Column } from "./table";

const POLL_MS = 2_000;

/** What each state means for those who watch. */
const STATES: Record<string, string> = {
  waiting: "waits for the stream",
  writing: "is written",
  slow: "the disk is slow",
  disk_full: "the disk is full",
  disk_failed: "the disk fails",
  refused: "cannot be recorded so",
  idle: "nothing waits",
  uploading: "is uploaded",
  failing: "the store does not take it",
};
const BAD = new Set(["slow", "disk_full", "disk_failed", "refused", "failing"]);

interface Row {
  stream: Stream;
  recording: Recording | null;
}

export function Recordings() {
  const { streams, phase } = useStore();
  const [recordings, setRecordings] = useState<Recording[]>([]);
  const [uploads, setUploads] = useState<Upload[]>([]);
  useEffect(() => {
    let timer = 0;
    let gone = false;
    const look = async () => {
      try {
        const [dvrs, ups] = await Promise.all([
          store.api.json<{ dvrs: Recording[] }>("dvrs/"),
          store.api.json<{ uploads: Upload[] }>("uploads"),
        ]);
        if (gone) return;
        setRecordings(dvrs.dvrs);
        setUploads(ups.uploads);
      } catch {
        // The frame says that the server cannot be reached.
      }
      if (!gone) timer = window.setTimeout(() => void look(), POLL_MS);
    };
    void look();
    return () => {
      gone = true;
      clearTimeout(timer);
    };
  }, [phase.link]);
  const known = new Map(recordings.map((recording) => [recording.stream, recording]));
  const rows: Row[] = streams
    .filter((stream) => stream.publish.active || known.has(stream.id))
    .map((stream) => ({ stream, recording: known.get(stream.id) ?? null }));
  return (
    <div class="stack">
      <section class="card flush" aria-labelledby="recordings-title">
        <div class="card-head"><h1 id="recordings-title">Recordings</h1></div>
        <Table
          caption="Recordings"
          columns={COLUMNS}
          rows={rows}
          id={(row) => row.stream.id}
          empty={<p class="calm">Nothing is live that could be recorded.</p>}
        />
      </section>
      {uploads.length > 0 && (
        <section class="card flush" aria-labelledby="uploads-title">
          <div class="card-head"><h2 id="uploads-title">Uploads</h2></div>
          <Table
            caption="Uploads"
            columns={UPLOAD_COLUMNS}
            rows={uploads}
            id={(upload) => upload.vhost}
            empty={null}
          />
        </section>
      )}
    </div>
  );
}

function State({ state, detail }: { state: string; detail: string | null }) {
  return (
    <>
      {BAD.has(state) && <Icon name="warn" />} {STATES[state] ?? state}
      {BAD.has(state) && detail !== null && <small>{detail}</small>}
    </>
  );
}

const COLUMNS: Column<Row>[] = [
  {
    label: "Stream",
    text: true,
    cell: ({ stream }) => (
      <a href={link("streams", stream.id)}>{stream.url.replace(/^\//, "")}</a>
    ),
  },
  {
    label: "State",
    cell: ({ recording }) =>
      recording === null
        ? "not recorded"
        : <State state={recording.state} detail={recording.detail} />,
  },
  {
    label: "For",
    number: true,
    cell: ({ recording }) => (recording === null ? "–" : span(recording.since_ms / 1000)),
  },
  {
    label: "Written",
    number: true,
    cell: ({ recording }) => (recording === null ? "–" : size(recording.bytes)),
  },
  {
    label: "Files",
    number: true,
    wide: true,
    cell: ({ recording }) => (recording === null ? "–" : count(recording.files)),
  },
  {
    label: "Missing",
    number: true,
    cell: ({ recording }) =>
      recording === null || recording.gaps === 0
        ? "–"
        : `${plural(recording.gaps, "gap")}, ${span(recording.lost_ms / 1000)}`,
  },
  {
    label: "",
    cell: ({ stream, recording }) => (
      <button type="button" class="button" onClick={() => record(stream, recording === null)}>
        {recording === null ? "Record" : "Stop"}
      </button>
    ),
  },
];

const UPLOAD_COLUMNS: Column<Upload>[] = [
  { label: "Vhost", text: true, cell: (upload) => upload.vhost },
  {
    label: "State",
    cell: (upload) => <State state={upload.state} detail={upload.detail} />,
  },
  {
    label: "Waiting",
    number: true,
    cell: (upload) => `${count(upload.waiting)}, ${size(upload.waiting_bytes)}`,
  },
  {
    label: "Oldest",
    number: true,
    cell: (upload) => (upload.oldest_ms === null ? "–" : span(upload.oldest_ms / 1000)),
  },
  {
    label: "Uploaded",
    number: true,
    cell: (upload) => `${count(upload.files)}, ${size(upload.bytes)}`,
  },
  { label: "Given up", number: true, wide: true, cell: (upload) => count(upload.given_up) },
];
