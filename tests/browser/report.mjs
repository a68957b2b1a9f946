// A report's page in a browser: node report.mjs PAGE N_CHARTS [FOLDER FOR PICTURES]
import assert from "node:assert/strict";
import { join, resolve, basename } from "node:path";
import { pathToFileURL } from "node:url";
import { find, fits, launch, open, readable } from "./browser.mjs";

const [file, least, pictures] = process.argv.slice(2);
const url = pathToFileURL(resolve(file)).href;
const name = basename(file, ".html");
const browser = await launch(find());
try {
  for (const width of [360, 1280]) {
    for (const scheme of ["light", "dark"]) {
      const what = `${name} at ${width} pixels, ${scheme}`;
      const { page, complaints } = await open(browser, url, { width, scheme });
      const charts = await page.$$eval("svg[role=img]", (found) => found.map((svg) => {
        const { width, height } = svg.getBoundingClientRect();
        const view = svg.viewBox.baseVal;
        const sticksOut = [...svg.querySelectorAll("text")].filter((text) => {
          const box = text.getBBox();
          return box.x < -1 || box.x + box.width > view.width + 1 || box.y < -1 || box.y + box.height > view.height + 1;
        });
        return {
          title: svg.querySelector("title")?.textContent,
          description: svg.querySelector("desc")?.textContent,
          width, height,
          sticksOut: sticksOut.map((text) => text.textContent),
          // Small enough to be overlooked on a phone.
          tiny: [...svg.querySelectorAll("text")].filter((text) => text.getBoundingClientRect().height < 9).length,
        };
      }));
      assert.ok(charts.length >= Number(least), `${what}: ${charts.length} charts of ${least}`);
      for (const chart of charts) {
        assert.ok(chart.title && chart.description, `${what}: a chart without a title or a description`);
        assert.ok(chart.width >= 250 && chart.height >= 50, `${what}: ${chart.title}: ${chart.width} × ${chart.height}`);
        assert.deepEqual(chart.sticksOut, [], `${what}: ${chart.title}: text beyond the chart`);
        assert.equal(chart.tiny, 0, `${what}: ${chart.title}: letters too small`);
      }
      const titles = charts.map((chart) => chart.title);
      assert.equal(new Set(titles).size, titles.length, `${what}: two charts of one title`);
      await fits(page, what);
      await readable(page, what);
      if (pictures) await page.screenshot({ path: join(pictures, `${name}-${width}-${scheme}.png`), fullPage: true });
      if (width === 1280 && scheme === "light") {
        const pdf = await page.pdf({ format: "A4", path: pictures && join(pictures, `${name}.pdf`) });
        const pages = Buffer.from(pdf).toString("latin1").match(/\/Type\s*\/Page\b/g)?.length ?? 0;
        assert.ok(pages >= 1 && pages <= 20, `${what}: ${pages} printed pages`);
      }
      assert.deepEqual(complaints, [], what);
      await page.close();
    }
  }
} finally {
  await browser.close();
}
console.log(`${name}: charts, widths, light and dark, print: ok`);
