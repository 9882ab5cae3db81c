/** Expands OpenSSH's `%h`-like tokens, and `${NAME}` where an environment is given; unknown ones stay. */
export function expandSshTokens(
  text: string,
  tokens: Readonly<Record<string, string>>,
  env: Readonly<Record<string, string | undefined>> = {},
): string {
  return text
    .replaceAll(/\$\{(\w+)\}/g, (whole, name: string) => env[name] ?? whole)
    .replaceAll(/%(.)/g, (whole, token: string) => (token === '%' ? '%' : (tokens[token] ?? whole)))
}
