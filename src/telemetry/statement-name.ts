/** What a statement does, such as INSERT, and the table that it does it to. */
export function statementName(text: string) {
  const [operation = ''] = /\b(select|insert|update|delete)\b/.exec(text) ?? []
  const [, table = ''] = /\b(?:from|into|update) "(\w+)"/.exec(text) ?? []
  return { operation: operation.toUpperCase(), table }
}
