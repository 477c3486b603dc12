import type { Context, ErrorHandler } from 'hono'
import { createMiddleware } from 'hono/factory'
import { html } from 'hono/html'
import type { ContentfulStatusCode } from 'hono/utils/http-status'
import packageJson from '../../package.json' with { type: 'json' }
import { wantsHtml } from './accept.ts'
import { answer } from './answer.ts'
import { assetPath } from './assets.ts'
import { CACHE } from './conditional.ts'
import type { Env } from './env.ts'
import { onError, type Problem, problemFor, TITLES } from './problem.ts'

const { name, version } = packageJson

export type Html = ReturnType<typeof html>

export type PageOptions = {
  title: string
  main: Html
  status?: ContentfulStatusCode | undefined
  headers?: Record<string, string> | undefined
  /** What the page needs beside the style sheet, and what it may load with that. */
  head?: Html
  policy?: string
}

const POLICY = "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
const PICTURES = "img-src 'self'"

/** `same-origin`: with `no-referrer`, browsers would send forms with an origin of null, which the guard refuses. */
const HEADERS = {
  'Content-Type': 'text/html; charset=utf-8',
  'Referrer-Policy': 'same-origin',
  'X-Content-Type-Options': 'nosniff',
  Vary: 'Accept',
  ...CACHE,
}

/** Answers with a page: the frame that all share, around its landmark `main`. */
export async function page(c: Context<Env>, options: PageOptions) {
  const { title, main, status = 200, headers, head, policy = PICTURES } = options
  const text = await html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>${title} · ${name}</title>
<link rel="icon" href="${assetPath('icon.svg')}">
${head}<link rel="stylesheet" href="${assetPath('page.css')}">
</head>
<body>
<a class="skip" href="#main">Skip to the content</a>
<header class="bar"><a class="brand" href="/"><img src="${assetPath('icon.svg')}" alt="" width="28" height="28">${name}</a>
<nav aria-label="Site"><a href="/docs">API reference</a></nav></header>
<div id="main" tabindex="-1">${main}</div>
<footer class="bar foot"><span>${name} ${version}</span><a href="/openapi.json">openapi.json</a></footer>
</body>
</html>
`
  return answer(c, String(text), status, { ...HEADERS, 'Content-Security-Policy': `${POLICY}; ${policy}`, ...headers })
}

/** csrf says nothing of its own. */
const FOREIGN_FORM = 'The form was sent from another site, so nothing was done. Open it here, and send it again.'

/** When it is worth another try, as a sentence; empty if the problem names no time. */
export function retrySentence({ options: { headers } }: Problem): string {
  const seconds = headers?.['Retry-After']
  return seconds ? `Try again in ${seconds} ${seconds === '1' ? 'second' : 'seconds'}.` : ''
}

/** Answers an error with a page. */
export const errorPage: ErrorHandler<Env> = (error, c) => {
  const problem = problemFor(error, c)
  const { status, message, options } = problem
  const title = TITLES[status] ?? 'Error'
  const main = html`<main class="card narrow">
<p class="status">${status}</p>
<h1>${title}</h1>
<p>${message || FOREIGN_FORM} ${retrySentence(problem)}</p>
<p class="actions"><a class="button" href="/">Back to the start</a></p>
<p class="hint">Request ${c.get('requestId')}</p>
</main>`
  return page(c, { title, main, status, headers: { ...options.headers, 'Cache-Control': 'no-store' } })
}

/** Answers an error with a page to a person, and with problem details to a program. */
export const errorForEither: ErrorHandler<Env> = (error, c) => (wantsHtml(c) ? errorPage : onError)(error, c)

/** Leads a person from here to another path. */
export const leadTo = (path: string) =>
  createMiddleware<Env>(async function leadTo(c, next) {
    return wantsHtml(c) ? answer(c, null, 302, { Location: path, Vary: 'Accept' }) : next()
  })
