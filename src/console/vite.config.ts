import { defineConfig } from "vite";

// Where a running server is, for `npm run dev`: its API, and its HTTP port.
const api = process.env["RINGCAST_API"] ?? "http://127.0.0.1:1985";
const http = process.env["RINGCAST_HTTP"] ?? "http://127.0.0.1:8080";
const proxy = {
  "/api": api,
  "/page": http,
  "/streams.json": http,
  "/live": { target: http, ws: true },
};

export default defineConfig({
  // Relative, so that a proxy may serve the pages below any path.
  base: "./",
  publicDir: false,
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
    rolldownOptions: {
      input: { console: "console/index.html", players: "players/index.html" },
      output: {
        // Without a hash, so that the list of embedded files is the same for every build. Each file
        // is served with an ETag of its content.
        entryFileNames: "page/[name].js",
        chunkFileNames: "page/shared.js",
        assetFileNames: "page/[name][extname]",
      },
    },
  },
});
