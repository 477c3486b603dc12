import type { Context } from 'hono'
import { accepts } from 'hono/accepts'
import { html } from 'hono/html'
import { secureHeaders } from 'hono/secure-headers'
import packageJson from '../../package.json' with { type: 'json' }
import { answer, typed } from './answer.ts'
import { assetPath } from './assets.ts'
import { CACHE } from './conditional.ts'
import type { Env } from './env.ts'
import { type Problem, problemFor, TITLES } from './problem.ts'

const { name, version } = packageJson

const HEADERS = {
  'Content-Type': 'text/html; charset=utf-8',
  // Pages load nothing but our own files; Swagger UI has pictures in its style sheet.
  'Content-Security-Policy':
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
  Vary: 'Accept',
  ...CACHE,
}

// With Hono's `no-referrer`, browsers would send forms with an origin of null, which the guard refuses. Whoever ends TLS says
// what holds for a whole domain.
const secure = secureHeaders({ referrerPolicy: 'same-origin', xFrameOptions: 'DENY', strictTransportSecurity: false })

/** Whether a person's browser asks. All else gets JSON. */
export const wantsHtml = (c: Context) =>
  accepts(c, { header: 'Accept', supports: ['application/json', 'text/html'], default: '' }) === 'text/html'

/**
 * Answers with a page: the frame that all share, around `content`, which has the landmark `main`. The client asks for none,
 * so they have no part in its types.
 */
export async function page(c: Context<Env>, title: string, content: ReturnType<typeof html>, problem?: Problem) {
  const icon = assetPath('icon.svg')
  const person = c.get('identity')?.person
  const text = await html`<!doctype html>
<html lang="en">
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>${problem && 'Error: '}${title} · ${name}</title>
<link rel="icon" href="${icon}"><link rel="stylesheet" href="${assetPath('page.css')}">
<body>
<a class="skip" href="#main">Skip to the content</a>
<header class="bar">
  <a class="brand" href="/"><img src="${icon}" alt="" width="28" height="28">${name}</a>
  ${person && html`<span class="who"><span class="unseen">Logged in as</span> <bdi>${person}</bdi></span>`}
  <nav aria-label="Site"><a href="/docs">API reference</a></nav>
</header>
<div id="main" tabindex="-1">${content}</div>
<footer class="bar foot"><span>${name} ${version}</span><a href="/openapi.json">openapi.json</a></footer>
`
  c.res = answer(c, String(text), problem?.status ?? 200, { ...HEADERS, ...problem?.options.headers })
  await secure(c, async () => {})
  return typed<never, 200>(c.res)
}

/** What went wrong, and when it is worth another try: programs get that as Retry-After. */
export function sentencesOf({ message, options: { headers } }: Problem): string {
  const seconds = headers?.['Retry-After']
  return seconds ? `${message} Try again in ${seconds} s.` : message
}

/** Answers an error with a page. */
export async function errorPage(error: Error, c: Context<Env>) {
  const problem = problemFor(error, c)
  const title = TITLES[problem.status] ?? 'Error'
  const content = html`<main class="card narrow">
    <h1>${title}</h1>
    <p>${sentencesOf(problem)}</p>
    <p class="actions"><a class="button" href="/">Back to the start</a></p>
    <p class="hint">Request ${c.get('requestId')}</p>
  </main>`
  return page(c, title, content, problem)
}
