// Files that the bundler knows what to do with.
declare module "*.css" {}
