import "./players.css";

import { render } from "preact";
import { apply, theme } from "../common/theme";
import { App } from "./app";

apply(theme());
render(<App />, document.getElementById("app") as HTMLElement);
