// Asks for a name and a password, or for a token, as the server wants it.

import { useState } from "preact/hooks";
import { useStore } from "./store";

export function SignIn() {
  const store = useStore();
  const { schemes, why } = store.phase;
  const takes = (scheme: string) => schemes.some((one) => one.toLowerCase() === scheme);
  const both = takes("basic") && takes("bearer");
  const [byToken, setByToken] = useState(!takes("basic") && takes("bearer"));
  const onSubmit = (event: SubmitEvent) => {
    event.preventDefault();
    const form = new FormData(event.currentTarget as HTMLFormElement);
    const field = (name: string) => String(form.get(name) ?? "");
    store.signIn(
      byToken ? { token: field("token") } : { name: field("name"), password: field("password") },
    );
  };
  return (
    <form class="card sign-in" onSubmit={onSubmit}>
      <h1>Sign in</h1>
      <p class="soft">This server asks who uses its API.</p>
      {why !== "" && <p class="notice bad" role="alert">{why}</p>}
      {byToken
        ? <Field key="token" name="token" label="Token" type="password" complete="off" />
        : (
          <>
            <Field key="name" name="name" label="Name" type="text" complete="username" />
            <Field
              key="password"
              name="password"
              label="Password"
              type="password"
              complete="current-password"
            />
          </>
        )}
      <div class="sign-in-buttons">
        <button type="submit" class="button primary">Sign in</button>
        {both && (
          <button type="button" class="button" onClick={() => setByToken(!byToken)}>
            {byToken ? "Use name and password" : "Use a token"}
          </button>
        )}
      </div>
    </form>
  );
}

/** What is typed here is no prose. */
const PLAIN = { autocapitalize: "none", spellcheck: false } as const;

interface FieldProps {
  name: string;
  label: string;
  type: "text" | "password";
  complete: string;
}

function Field({ name, label, type, complete }: FieldProps) {
  return (
    <label class="field">
      <span>{label}</span>
      {type === "text"
        ? <input type="text" name={name} autocomplete={complete} {...PLAIN} required />
        : <input type="password" name={name} autocomplete={complete} {...PLAIN} required />}
    </label>
  );
}
