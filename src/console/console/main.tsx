import "./console.css";

import { render } from "preact";
import { apply, theme } from "../common/theme";
import { App } from "./app";
import { store } from "./store";

apply(theme());
store.start();
render(<App />, document.getElementById("app") as HTMLElement);
