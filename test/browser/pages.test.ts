import type { Page } from 'playwright-core'
import { afterAll, afterEach, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { startIssuer } from '../../dev/issuer.ts'
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
afterEach(async () => {
  await api.database?.sql.unsafe('delete from users')
})

const create = async (username: string, email: string) =>
  (await api.request('POST', '/users', { username, email })).body as { id: number }

async function fill(page: Page, username: string, email: string) {
  await page.getByLabel('Username').fill(username)
  await page.getByLabel('Email').fill(email)
}

/** What is said beside a field, as the field itself names it. */
const faultOf = (page: Page, field: string) => page.locator(`#${field}-fault`).textContent()
const press = (page: Page, name: string) => page.getByRole('button', { name, exact: true }).click()
/** The names in the table, as they are read out. */
const listed = (page: Page) => page.locator('tbody .person > bdi:not(.email)').allTextContents()

describe.each([true, false])('with JavaScript: %s', (javaScriptEnabled) => {
  test('a person adds, looks up, edits and deletes a user', async () => {
    const page = await openTab(browser, api.url, { javaScriptEnabled })
    await page.goto('/')
    expect(new URL(page.url()).pathname).toBe('/users')
    expect(await page.textContent('main')).toContain('There are no users yet')

    await page.getByRole('link', { name: 'Add a user' }).click()
    await fill(page, 'Alice', 'alice at example')
    await press(page, 'Add user')
    expect(await faultOf(page, 'email')).toBe('Email must be an email address')
    expect(await page.getByLabel('Username').inputValue()).toBe('Alice')
    await page.getByLabel('Email').fill('alice@example.com')
    await press(page, 'Add user')
    expect(await listed(page)).toEqual(['Alice'])

    await create('Bob', 'bob@example.com')
    const lookUp = page.getByRole('search', { name: 'Look up: Email' })
    await lookUp.getByLabel('Email').fill('BOB@example.com')
    await lookUp.getByRole('button').click()
    expect(await listed(page)).toEqual(['Bob'])
    await page.getByRole('link', { name: 'Back to the first page' }).click()
    expect(await listed(page)).toEqual(['Alice', 'Bob'])

    const search = page.getByRole('search', { name: 'Look up: Username starts with' })
    await search.getByRole('button').click()
    expect(await listed(page), 'an empty search is not sent').toEqual(['Alice', 'Bob'])
    await search.getByLabel('Username starts with').fill('aL')
    await page.keyboard.press('Enter')
    await page.waitForURL('**/users?usernamePrefix=aL')
    expect(await listed(page)).toEqual(['Alice'])
    await page.getByRole('link', { name: 'Back to the first page' }).click()

    await page.getByRole('link', { name: 'Edit Alice' }).click()
    await page.getByLabel('Username').fill('bob')
    await press(page, 'Save')
    expect(await faultOf(page, 'username')).toBe('Username is taken by another user')
    await page.getByLabel('Username').fill('Alicia')
    await press(page, 'Save')
    expect(await listed(page)).toEqual(['Alicia', 'Bob'])

    await page.getByRole('link', { name: 'Delete Alicia' }).click()
    await press(page, 'Delete')
    expect(await listed(page)).toEqual(['Bob'])
  })

  test('one who was slower sees both versions, and decides', async () => {
    const { id } = await create('Carol', 'carol@example.com')
    const page = await openTab(browser, api.url, { javaScriptEnabled })
    await page.goto(`/users/${id}/edit`)
    await api.request('PATCH', `/users/${id}`, { username: 'Caroline' })
    await page.getByLabel('Username').fill('Carola')
    await press(page, 'Save')
    expect(await page.getByRole('alert').textContent()).toContain('Someone has changed this user')
    expect(await faultOf(page, 'username')).toBe('Username is Caroline by now')
    expect(await page.getByLabel('Username').inputValue()).toBe('Carola')
    await press(page, 'Save')
    expect(await listed(page)).toEqual(['Carola'])
  })
})

test('pages lead on and back, and the browser follows its history', async () => {
  for (let n = 0; n < 101; n++) await create(`Number ${n}`, `number${n}@example.com`)
  const page = await openTab(browser, api.url)
  await page.goto('/users')
  expect(await listed(page)).toHaveLength(100)
  await page.getByRole('link', { name: 'Next page' }).click()
  expect(await listed(page)).toEqual(['Number 100'])
  await page.getByRole('link', { name: 'Back to the first page' }).click()
  await page.goBack()
  expect(await listed(page)).toEqual(['Number 100'])
})

test('the keyboard alone adds a user', async () => {
  const page = await openTab(browser, api.url)
  await page.goto('/users')
  const focused = () => page.evaluate<string>('document.activeElement.textContent.trim()')
  await page.keyboard.press('Tab')
  expect(await focused()).toBe('Skip to the content')
  expect(await page.evaluate('document.activeElement.getBoundingClientRect().top')).toBeGreaterThan(0)
  await page.keyboard.press('Enter')
  await page.keyboard.press('Tab')
  expect(await focused()).toBe('Add a user')
  expect(await page.evaluate('getComputedStyle(document.activeElement).outlineStyle')).toBe('solid')
  await page.keyboard.press('Enter')
  await page.waitForURL('**/users/new')
  await page.getByLabel('Username').focus()
  await page.keyboard.type('Dave')
  await page.keyboard.press('Enter')
  // What is wrong has the focus.
  await page.getByText('Email must').waitFor()
  expect(await page.evaluate('document.activeElement.id')).toBe('email')
  await page.keyboard.type('dave@example.com')
  await page.keyboard.press('Enter')
  await page.waitForURL(/\/users.*#user-\d+$/)
  expect(await listed(page)).toEqual(['Dave'])
})

describe.each(['light', 'dark'] as const)('on a %s screen', (colorScheme) => {
  test.each([
    ['a desk', { width: 1280, height: 800 }],
    ['a phone', PHONE],
  ])('of %s every state is wide enough and accessible', async (_, viewport) => {
    const { id } = await create('W'.repeat(80), `${'w'.repeat(60)}@${'long-domain-name.'.repeat(8)}example`)
    await create('محمد الخوارزمي', 'khwarizmi@example.com')
    await create('<script>alert(1)</script>', 'script@example.com')
    const page = await openTab(browser, api.url, { colorScheme, viewport })
    async function check() {
      expect(await violationsOf(page), page.url()).toEqual([])
      expect(await widthOf(page), page.url()).toBe(viewport.width)
    }
    for (const path of [
      '/users',
      '/users?username=Nobody',
      '/users?usernamePrefix=w&limit=1',
      '/users/new',
      `/users/${id}/edit`,
      `/users/${id}/delete`,
      '/nowhere',
    ]) {
      await page.goto(path)
      await check()
    }
    const scheme = await page.evaluate('getComputedStyle(document.body).backgroundColor')
    expect(scheme).toBe(colorScheme === 'light' ? 'rgb(246, 246, 244)' : 'rgb(18, 19, 23)')
    await page.goto('/users/new')
    await fill(page, ' ', 'script@example.com')
    await press(page, 'Add user')
    await check()
    await page.goto(`/users/${id}/edit`)
    await api.request('PATCH', `/users/${id}`, { email: 'other@example.com' })
    await press(page, 'Save')
    await check()
    await api.database?.sql.unsafe('delete from users')
    await page.goto('/users')
    await check()
  })
})

test('a database that is away says so and when to come back, and keeps what was typed', async () => {
  const away = await startApi({
    DATABASE_URL: 'postgres://u:p@127.0.0.1:1/x',
    STARTUP_WAIT_MS: '0',
    DEADLINE_MS: '500',
  })
  try {
    const page = await openTab(browser, away.url)
    await page.goto('/users')
    expect(await page.textContent('main')).toContain('Try again in 1 s.')
    expect(await violationsOf(page)).toEqual([])
    await page.goto('/users/new')
    await fill(page, 'Eve', 'eve@example.com')
    await press(page, 'Add user')
    expect(await page.getByRole('alert').textContent()).toContain(
      'The database cannot take this request now. Try again in 1 s.',
    )
    expect(await page.getByLabel('Email').inputValue()).toBe('eve@example.com')
    expect(await violationsOf(page)).toEqual([])
  } finally {
    await away.close()
  }
})

test('who came through a proxy sees as whom, also on a phone, and adds a user if they may', async () => {
  const issuer = await startIssuer()
  onTestFinished(issuer.close)
  const AUTH_IAP_SCOPES = 'users:read users:write'
  const guarded = await startApi({ AUTH_IAP_AUDIENCE: 'x', AUTH_IAP_JWKS_URL: issuer.jwksUrl, AUTH_IAP_SCOPES })
  onTestFinished(() => guarded.close())
  const email = `${'long'.repeat(15)}@example.com`
  const claims = { iss: 'https://cloud.google.com/iap', aud: 'x', email }
  const extraHTTPHeaders = { 'x-goog-iap-jwt-assertion': await issuer.sign(claims, { typ: 'JWT' }) }
  const page = await openTab(browser, guarded.url, { viewport: PHONE, extraHTTPHeaders })
  await page.goto('/users/new')
  await fill(page, 'Alice', 'alice@example.com')
  await press(page, 'Add user')
  expect(await listed(page)).toEqual(['Alice'])
  expect(await page.textContent('header')).toContain(email)
  expect(await violationsOf(page)).toEqual([])
  expect(await widthOf(page)).toBe(PHONE.width)
})

test('a form of another site is refused with a page', async () => {
  const page = await browser.newPage()
  await page.setContent(`<form method="post" action="${api.url}/users/new"><input name="username" value="Mallory">
    <input name="email" value="mallory@example.com"><button>Win</button></form>`)
  const [response] = await Promise.all([page.waitForResponse(`${api.url}/users/new`), page.getByRole('button').click()])
  expect(response.status()).toBe(403)
  expect(await page.textContent('main')).toContain('sent from another site')
  await page.close()
  expect((await api.request('GET', '/users')).body.users).toEqual([])
})
