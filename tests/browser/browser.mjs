// A headless browser, and pages that are held to what every page of duet has to keep.
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { delimiter, join, resolve } from "node:path";
import puppeteer from "puppeteer-core";

const unpacked = resolve(".tools/chromium");

// The browser to use: CHROMIUM, the one that set-up has unpacked, or one on the path.
export const find = () => {
  if (process.env.CHROMIUM) return process.env.CHROMIUM;
  const names = ["chromium", "chromium-browser", "google-chrome"];
  const folders = (process.env.PATH || "").split(delimiter);
  const candidates = [join(unpacked, "chromium"), ...folders.flatMap((folder) => names.map((name) => join(folder, name)))];
  return candidates.find(existsSync);
};

export const launch = (path) => puppeteer.launch({
  executablePath: path,
  headless: "shell",
  // Containers and root have no sandbox to offer; the pages are duet's own.
  args: ["--no-sandbox", "--disable-gpu", "--font-render-hinting=none"],
  env: {
    ...process.env,
    LD_LIBRARY_PATH: [process.env.LD_LIBRARY_PATH, join(unpacked, "lib")].filter(Boolean).join(delimiter),
    ...(existsSync("/etc/fonts/fonts.conf") ? {} : { FONTCONFIG_FILE: join(unpacked, "fonts.conf") }),
  },
});

// A page that fails the test for whatever it says on its console, and for each request to anything but `allowed`.
export const open = async (browser, url, { width, scheme = "light", allowed = () => false } = {}) => {
  const page = await browser.newPage();
  const complaints = [];
  page.on("console", (message) => {
    if (["error", "warn"].includes(message.type())) complaints.push(`console: ${message.text()}`);
  });
  page.on("pageerror", (error) => complaints.push(`script: ${error.message}`));
  page.on("request", (request) => {
    const to = request.url();
    if (to !== url && !to.startsWith("data:") && !allowed(to)) complaints.push(`request to ${to}`);
  });
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  await page.setViewport({ width, height: 800, deviceScaleFactor: 2, isMobile: width < 600 });
  await page.goto(url, { waitUntil: "networkidle0" });
  return { page, complaints };
};

// Nothing sticks out to the right of the window.
export const fits = async (page, what) => {
  const found = await page.evaluate(() => {
    const width = document.documentElement.clientWidth;
    const scrolls = (node) => node.closest(".scroll") !== null;
    const wide = [...document.body.querySelectorAll("*")]
      .filter((node) => !scrolls(node) && node.getBoundingClientRect().right > width + 0.5)
      .map((node) => node.tagName + " " + (node.textContent || "").trim().slice(0, 60));
    return { width, scroll: document.documentElement.scrollWidth, wide };
  });
  assert.ok(found.scroll <= found.width, `${what}: ${found.scroll} pixels in a window of ${found.width}`);
  assert.deepEqual(found.wide, [], `${what}: beyond the right edge`);
};

// Contrast of the text of every chart and paragraph against the page (WCAG 2, AA for small text).
export const readable = async (page, what) => {
  const poor = await page.evaluate(() => {
    const channels = (color) => (color.match(/[\d.]+/g) || []).map(Number);
    const luminance = (color) => {
      const [r, g, b] = channels(color).map((c) => c / 255).map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const paper = luminance(getComputedStyle(document.body).backgroundColor);
    const contrast = (color) => {
      const ink = luminance(color);
      return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
    };
    const nodes = [...document.querySelectorAll("svg text"), ...document.querySelectorAll("p, li, td, figcaption")];
    return nodes
      .map((node) => [node, getComputedStyle(node)[node.closest("svg") ? "fill" : "color"]])
      .filter(([, color]) => contrast(color) < 4.5)
      .map(([node, color]) => `${color}: ${node.textContent.slice(0, 40)}`);
  });
  assert.deepEqual(poor, [], `${what}: too little contrast`);
};
