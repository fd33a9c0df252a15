import { App } from "./app.js";
import { takeToken } from "./link.js";

takeToken();
export const app = new App();
await app.start();
