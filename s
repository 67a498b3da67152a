logrotate state -- version 2
