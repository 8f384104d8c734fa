// What can be taken along of the current configuration: its reports and its command.
import { post } from "./ask.js";
import { element, isReady, state, told } from "./desk.js";

const KEPT_MS = 60_000; // of a file in memory, until the browser has it on disk
const whenReady = (take) => (isReady() ? take() : told("Wait for figures, or change what was refused."));

export const download = (kind) => whenReady(async () => {
  told(`Writing ${kind} …`);
  try {
    const response = await post(`download/${kind}`, state.answer.asked);
    const name = /filename="([^"]+)"/.exec(response.headers.get("Content-Disposition") ?? "");
    if (!name) throw new Error((await response.json()).error);
    const link = element("a");
    link.href = URL.createObjectURL(await response.blob());
    link.download = name[1];
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), KEPT_MS);
    told("");
  } catch (error) {
    told(error.message);
  }
});

export const copy = () => whenReady(async () => {
  try {
    await navigator.clipboard.writeText(state.answer.command);
    told("Copied.");
  } catch {
    told("The browser does not allow it: select the line below.");
  }
});
