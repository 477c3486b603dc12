import { Hono } from 'hono'
import { html } from 'hono/html'
import { assetPath } from './assets.ts'
import type { Env } from './env.ts'
import { page } from './page.ts'

/** `/docs`: Swagger UI, where a person reads the description of the service and tries it. All of it comes from here, its landmark `main` as well. */
export const docs = () =>
  new Hono<Env>().get('/docs', (c) =>
    page(c, {
      title: 'API reference',
      policy: "img-src 'self' data:; script-src 'self'; connect-src 'self'",
      head: html`<link rel="stylesheet" href="${assetPath('swagger-ui.css')}">
<script src="${assetPath('swagger-ui-bundle.js')}" defer></script>
<script src="${assetPath('docs.js')}" defer></script>`,
      main: html`<div id="swagger-ui"><noscript><p class="card narrow">This page needs JavaScript. <a href="/openapi.json">openapi.json</a> says the same.</p></noscript></div>`,
    }),
  )
