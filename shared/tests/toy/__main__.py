from toy import APP

if __name__ == "__main__":  # data loader workers may import this again
    raise SystemExit(APP.main())
