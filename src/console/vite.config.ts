import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { defineConfig, type Plugin } from "vite";

// Where a running server is, for `npm run dev`: its API, and its HTTP port.
const api = process.env["RINGCAST_API"] ?? "http://127.0.0.1:1985";
const http = process.env["RINGCAST_HTTP"] ?? "http://127.0.0.1:8080";
const proxy = {
  "/api": api,
  "/page": http,
  "/streams.json": http,
  "/live": { target: http, ws: true },
};

// dash.js without captions of other formats, DRM, offline use and reports; the package does not
// export that build by a name.
const dash = "./node_modules/dashjs/dist/modern/esm/dash.mediaplayer.min.js";

/** Files of their own, which the page loads with the first stream that needs them. */
const LIBRARIES = [
  { name: "hls", folder: "/node_modules/hls.js/" },
  { name: "dash", folder: "/node_modules/dashjs/" },
];

/** Libraries are larger than all the rest, so they are embedded and sent compressed. */
const compressed: Plugin = {
  name: "compressed",
  apply: "build",
  generateBundle(_, bundle) {
    for (const { name } of LIBRARIES) {
      const fileName = `page/${name}.js`;
      const chunk = bundle[fileName];
      if (chunk?.type !== "chunk") throw new Error(`${fileName} is no chunk`);
      delete bundle[fileName];
      const source = gzipSync(chunk.code, { level: 9 });
      this.emitFile({ type: "asset", fileName: `${fileName}.gz`, source });
    }
  },
};

export default defineConfig({
  // Relative, so that a proxy may serve the pages below any path.
  base: "./",
  publicDir: false,
  plugins: [compressed],
  resolve: { alias: { "dash-player": fileURLToPath(new URL(dash, import.meta.url)) } },
  server: { proxy },
  preview: { proxy },
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  build: {
    outDir: "../page/built",
    emptyOutDir: true,
    assetsDir: "page",
    target: "es2022",
    cssTarget: ["chrome111", "firefox113", "safari16.2"],
    modulePreload: false,
    reportCompressedSize: true,
    chunkSizeWarningLimit: 800,
    rolldownOptions: {
      input: { console: "console/index.html", players: "players/index.html" },
      output: {
        // Without a hash, so that the list of embedded files is the same for every build. Each file
        // is served with an ETag of its content.
        entryFileNames: "page/[name].js",
        chunkFileNames: ({ moduleIds }) => {
          const isIn = (folder: string) => moduleIds.some((id) => id.includes(folder));
          const library = LIBRARIES.find(({ folder }) => isIn(folder));
          return `page/${library?.name ?? "shared"}.js`;
        },
        assetFileNames: "page/[name][extname]",
      },
    },
  },
});
