import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Api, startApi } from '../api.ts'
import { type Browser, launch, openTab, PHONE, violationsOf, widthOf } from './browser.ts'

let api: Api
let browser: Browser
beforeAll(async () => {
  api = await startApi()
  browser = await launch()
})
afterAll(async () => {
  await browser.close()
  await api.close()
})

test.each(['light', 'dark'] as const)(
  'on a %s screen /docs sends a POST with its example and shows the answer',
  async (colorScheme) => {
    const page = await openTab(browser, api.url, { colorScheme })
    await page.goto('/docs')
    const post = page.locator('.opblock-post')
    await post.locator('.opblock-summary-control').click()
    await post.getByRole('button', { name: 'Try it out' }).click()
    const body = post.locator('textarea')
    expect(JSON.parse(await body.inputValue())).toEqual({ username: 'Alice', email: 'alice@example.com' })
    await body.fill(JSON.stringify({ username: `From ${colorScheme}`, email: `${colorScheme}@example.com` }))
    await post.getByRole('button', { name: 'Execute' }).click()
    const live = post.locator('.live-responses-table')
    await live.waitFor()
    expect(await live.locator('.response-col_status').last().textContent()).toContain('201')
    expect(await live.textContent()).toContain(`From ${colorScheme}`)
    const { body: found } = await api.request('GET', `/users?email=${colorScheme}@example.com`)
    expect(found.users).toMatchObject([{ username: `From ${colorScheme}` }])
  },
)

test('what we put around Swagger UI is accessible, and fits a phone', async () => {
  const page = await openTab(browser, api.url, { viewport: PHONE })
  await page.goto('/docs')
  await page.locator('.opblock').first().waitFor()
  for (const part of ['header', 'footer']) expect(await violationsOf(page, part)).toEqual([])
  expect(await widthOf(page)).toBe(PHONE.width)
})

test('without JavaScript it names the description', async () => {
  const page = await openTab(browser, api.url, { javaScriptEnabled: false })
  await page.goto('/docs')
  await page.locator('noscript').getByRole('link', { name: 'openapi.json' }).click()
  expect(new URL(page.url()).pathname).toBe('/openapi.json')
})

test('a description with a security scheme gets a button to give a token', async () => {
  const page = await openTab(browser, api.url)
  await page.route('**/openapi.json', async (route) => {
    const description = await (await route.fetch()).json()
    description.components.securitySchemes = { token: { type: 'http', scheme: 'bearer' } }
    description.security = [{ token: [] }]
    await route.fulfill({ json: description })
  })
  await page.goto('/docs')
  await page.getByRole('button', { name: 'Authorize' }).click()
  await page.getByLabel('auth-bearer-value').fill('secret')
  await page.getByRole('button', { name: 'Apply credentials' }).click()
  await page.getByRole('button', { name: 'Close' }).last().click()
  const get = page.locator('.opblock-get').first()
  await get.locator('.opblock-summary-control').click()
  await get.getByRole('button', { name: 'Try it out' }).click()
  const sent = page.waitForRequest('**/users*')
  await get.getByRole('button', { name: 'Execute' }).click()
  const request = await sent
  expect(request.headers().authorization).toBe('Bearer secret')
  // Nothing that may be left out is filled in: an example of a name would only find that user.
  expect(new URL(request.url()).search.replace('?limit=100', '')).toBe('')
})
