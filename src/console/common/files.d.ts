// Files that the bundler knows what to do with.
declare module "*.css" {}
// A build of dash.js, see vite.config.ts.
declare module "dash-player" {}
