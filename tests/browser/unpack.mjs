// Unpacks the browser of @sparticuz/chromium with the libraries and the font that come with it: node unpack.mjs FOLDER
// Only for Linux on x86-64; elsewhere says so and leaves the folder empty.
import { spawnSync } from "node:child_process";
import { chmodSync, createReadStream, createWriteStream, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { pipeline } from "node:stream/promises";
import { fileURLToPath } from "node:url";
import { createBrotliDecompress } from "node:zlib";

const folder = process.argv[2];
if (!folder) throw new Error("usage: node unpack.mjs FOLDER");
mkdirSync(folder, { recursive: true });
if (process.platform !== "linux" || process.arch !== "x64") {
  console.log(`browser: there is none packed for ${process.platform} on ${process.arch}; CHROMIUM can name one`);
  process.exit(0);
}
const packed = join(dirname(fileURLToPath(import.meta.url)), "node_modules/@sparticuz/chromium/bin");
const unpack = async (name, to) => {
  await pipeline(createReadStream(join(packed, name)), createBrotliDecompress(), createWriteStream(to));
};
await unpack("chromium.br", join(folder, "chromium"));
chmodSync(join(folder, "chromium"), 0o755);
// For machines without NSS, and without any font.
for (const name of ["al2023.tar", "fonts.tar"]) {
  const tar = join(folder, name);
  await unpack(`${name}.br`, tar);
  const done = spawnSync("tar", ["-xf", tar, "-C", folder, "--no-same-owner"], { stdio: "inherit" });
  if (done.status !== 0) throw new Error(`cannot unpack ${name}`);
  rmSync(tar);
}
const fonts = resolve(folder, "fonts");
writeFileSync(join(folder, "fonts.conf"), `<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>${fonts}</dir><cachedir>${fonts}/cache</cachedir></fontconfig>
`);
