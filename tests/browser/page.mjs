// The server's page: both engines answer the same prompt side by side: node page.mjs URL KEY [FOLDER FOR PICTURES]
import assert from "node:assert/strict";
import { join } from "node:path";
import { find, fits, launch, open } from "./browser.mjs";

const [server, key, pictures] = process.argv.slice(2);
const browser = await launch(find());
try {
  for (const width of [360, 1280]) {
    const what = `the page at ${width} pixels`;
    const seen = [];
    const allowed = (to) => to.startsWith(`${server}/v1/`) && seen.push(to);
    const { page, complaints } = await open(browser, `${server}/`, { width, allowed });
    // Without the key the page says what is missing; the browser says it too, once.
    await page.waitForFunction(() => document.getElementById("note").textContent.length > 0);
    assert.match(await page.$eval("#note", (note) => note.textContent), /key/i, what);
    assert.ok(complaints.splice(0).every((text) => /401/.test(text)), what);

    await page.type("#key", key);
    await page.$eval("#key", (input) => input.dispatchEvent(new Event("change")));
    await page.waitForFunction(() => document.querySelectorAll("#models tr").length >= 2);
    const chosen = await page.$$eval(".side select", (found) => found.map((select) => select.value));
    assert.equal(new Set(chosen).size, 2, `${what}: two models side by side, not ${chosen}`);
    await fits(page, `${what}, before`);

    await page.$eval("#tokens", (input) => { input.value = "24"; });
    await page.type("#prompt", "Name three colours.");
    // What the speed says while the answer comes, and at the end.
    await page.evaluate(() => {
      window.rates = [new Set(), new Set()];
      document.querySelectorAll(".side .rate").forEach((rate, index) =>
        new MutationObserver(() => window.rates[index].add(rate.textContent)).observe(rate, { childList: true }));
    });
    await page.click("#send");
    await page.waitForFunction(() => !document.getElementById("send").disabled &&
      [...document.querySelectorAll(".side .rate")].every((rate) => / on /.test(rate.textContent) || /failed/.test(rate.textContent)),
      { timeout: 120_000 });
    const sides = await page.$$eval(".side", (found) => found.map((side) => ({
      rate: side.querySelector(".rate").textContent,
      answer: side.querySelector(".log").lastElementChild.textContent,
      bad: side.querySelector(".bad")?.textContent,
    })));
    for (const side of sides) {
      assert.equal(side.bad, undefined, what);
      assert.ok(side.answer.trim().length > 10, `${what}: an answer of "${side.answer}"`);
      assert.match(side.rate, /^\d+\.\d tok\/s, first after \d+ ms, \d+ tokens on (gguf|mlx)$/, what);
    }
    assert.deepEqual(sides.map((side) => side.rate.split(" ").at(-1)).sort(), ["gguf", "mlx"], what);
    const live = await page.evaluate(() => window.rates.map((rates) => [...rates].filter((rate) => /^\d+\.\d tok\/s$/.test(rate)).length));
    assert.ok(live.every((n) => n >= 3), `${what}: the speed was shown ${live} times while the answers came`);
    await fits(page, `${what}, after`);
    if (pictures) await page.screenshot({ path: join(pictures, `page-${width}.png`), fullPage: true });

    await page.click("#clear");
    assert.deepEqual(await page.$$eval(".side .log", (logs) => logs.map((log) => log.childElementCount)), [0, 0], what);
    // A long answer is stopped.
    await page.$eval("#tokens", (input) => { input.value = "1000"; });
    await page.type("#prompt", " Then tell a long story.");
    await page.click("#send");
    await page.waitForFunction(() => [...document.querySelectorAll(".side .rate")].every((rate) => /tok\/s/.test(rate.textContent)));
    await page.click("#stop");
    await page.waitForFunction(() => [...document.querySelectorAll(".side .rate")].every((rate) => rate.textContent === "stopped"));
    assert.deepEqual(complaints, [], what);
    assert.ok(seen.length >= 4, `${what}: models and both chats were asked for`);
    await page.close();
  }
} finally {
  await browser.close();
}
console.log("the page: both engines side by side, live speed, stop: ok");
